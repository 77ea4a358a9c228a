//! Forces against finite differences, term by term, and what no force may do: move or turn the whole.

use candle_core::{Device, Tensor};
use sde_core::Target;
use sde_core::molecule::{
    Angle, Boltzmann, Bond, BornAtom, ForceField, GeneralizedBorn, Pair, Terms, Torsion, dihedral,
};
use sde_core::noise::{Noise, Stream};

type Outcome = Result<(), sde_core::Error>;

fn places(seed: u64, atoms: usize) -> Vec<f64> {
    let mut draws = Noise::new(seed).draws(Stream::User, 0, 0);
    (0..3 * atoms)
        .map(|i| 0.12 * (i / 3) as f64 * f64::from(u8::from(i % 3 == 0)) + 0.1 * draws.normal())
        .collect()
}

fn none() -> Terms {
    Terms { atoms: 5, bonds: vec![], angles: vec![], torsions: vec![], pairs: vec![], solvent: None }
}

fn each_alone() -> Vec<(&'static str, Terms)> {
    let atom = |i: usize| BornAtom {
        charge: [0.5, -0.7, 0.3, 0.2, -0.4][i],
        radius: [0.17, 0.12, 0.15, 0.155, 0.13][i],
        screen: [0.72, 0.85, 0.85, 0.79, 0.85][i],
    };
    let solvent = GeneralizedBorn { prefactor: 137.0, surface: 28.0, atoms: (0..5).map(atom).collect() };
    let torsion = Torsion { atoms: [0, 1, 2, 4], barrier: 3.0, multiplicity: 3.0, phase: 0.7 };
    vec![
        ("bonds", Terms { bonds: vec![Bond { atoms: [0, 3], stiffness: 900.0, length: 0.1 }], ..none() }),
        ("angles", Terms { angles: vec![Angle { atoms: [2, 0, 4], stiffness: 90.0, angle: 1.9 }], ..none() }),
        ("torsions", Terms { torsions: vec![torsion], ..none() }),
        (
            "pairs",
            Terms { pairs: vec![Pair { atoms: [1, 4], twelve: 1e-7, six: 1e-4, coulomb: -9.0 }], ..none() },
        ),
        ("solvent", Terms { solvent: Some(solvent), ..none() }),
    ]
}

/// Central differences, h = 1e-6: truncation h² times third derivatives over forces, rounding 1e-16·E/h; 1e-6 holds both.
#[test]
fn forces_are_the_gradient() -> Outcome {
    for (name, terms) in each_alone() {
        let force_field = ForceField::new(terms)?;
        for seed in 0..4 {
            let x = places(seed, 5);
            let (mut forces, mut unused) = (vec![0.0; 15], vec![0.0; 15]);
            force_field.energy(&x, &mut forces)?;
            let largest = forces.iter().fold(1e-3, |m: f64, f| m.max(f.abs()));
            for i in 0..15 {
                let mut at = |shift: f64| {
                    let mut moved = x.clone();
                    moved[i] += shift;
                    force_field.energy(&moved, &mut unused).map(|parts| parts.total())
                };
                let difference = (at(-1e-6)? - at(1e-6)?) / 2e-6;
                assert!(
                    (difference - forces[i]).abs() < 1e-6 * largest,
                    "{name}, {i}: {difference} {}",
                    forces[i]
                );
            }
        }
    }
    Ok(())
}

#[test]
fn forces_neither_move_nor_turn_the_whole() -> Outcome {
    for (name, terms) in each_alone() {
        let x = places(9, 5);
        let mut forces = vec![0.0; 15];
        ForceField::new(terms)?.energy(&x, &mut forces)?;
        let largest = forces.iter().fold(0.0, |m: f64, f| m.max(f.abs()));
        assert!(largest > 0.0, "{name}");
        for axis in 0..3 {
            let (next, last) = ((axis + 1) % 3, (axis + 2) % 3);
            let sum: f64 = (0..5).map(|i| forces[3 * i + axis]).sum();
            let turn: f64 = (0..5)
                .map(|i| x[3 * i + next] * forces[3 * i + last] - x[3 * i + last] * forces[3 * i + next])
                .sum();
            assert!(sum.abs() < 1e-12 * largest && turn.abs() < 1e-12 * largest, "{name}: {sum} {turn}");
        }
    }
    Ok(())
}

/// The bond at the ends of a rectangle's half: 0 where they are on one side, ±π/2 and π as one turns.
#[test]
fn torsions_are_signed_angles() -> Outcome {
    for turn in [0.0, 0.4, 1.5, 3.0, -0.4, -3.0] {
        let (sin, cos) = f64::sin_cos(turn);
        let x = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, cos, sin];
        let found = dihedral(&x, [0, 1, 2, 3])?;
        assert!((found - turn).abs() < 1e-14, "{turn}: {found}");
    }
    assert!(dihedral(&[0.0; 12], [0, 1, 2, 4]).is_err());
    Ok(())
}

#[test]
fn terms_are_checked() {
    let bad = [
        Terms { bonds: vec![Bond { atoms: [0, 5], stiffness: 1.0, length: 0.1 }], ..none() },
        Terms { bonds: vec![Bond { atoms: [0, 1], stiffness: -1.0, length: 0.1 }], ..none() },
        Terms { angles: vec![Angle { atoms: [0, 1, 2], stiffness: -1.0, angle: 1.0 }], ..none() },
        Terms {
            torsions: vec![Torsion { atoms: [0, 1, 2, 3], barrier: 1.0, multiplicity: 1.5, phase: 0.0 }],
            ..none()
        },
        Terms { atoms: 0, ..none() },
        Terms { bonds: vec![Bond { atoms: [1, 1], stiffness: 1.0, length: 0.1 }], ..none() },
        Terms { pairs: vec![Pair { atoms: [1, 2], twelve: f64::NAN, six: 0.0, coulomb: 0.0 }], ..none() },
        Terms { solvent: Some(GeneralizedBorn { prefactor: 1.0, surface: 0.0, atoms: vec![] }), ..none() },
    ];
    for terms in bad {
        assert!(ForceField::new(terms.clone()).is_err(), "{terms:?}");
    }
}

/// ½ k r₀² and no force, for there is no direction.
#[test]
fn a_bond_of_no_length_has_no_force() -> Outcome {
    let bond = Bond { atoms: [0, 3], stiffness: 900.0, length: 0.1 };
    let mut forces = vec![0.0; 15];
    let parts = ForceField::new(Terms { bonds: vec![bond], ..none() })?.energy(&[0.3; 15], &mut forces)?;
    assert!((parts.bonds - 4.5).abs() < 1e-12 && forces == [0.0; 15], "{parts:?} {forces:?}");
    Ok(())
}

/// Score against differences; moved as a whole, the density changes by the tether alone.
#[test]
fn the_boltzmann_law_has_its_score() -> Outcome {
    let force_field = ForceField::new(each_alone().swap_remove(4).1)?;
    let target = Boltzmann::new("molecule", force_field, 300.0, 0.5, 2)?;
    let log = |x: &[f64]| -> Result<(f64, Vec<f64>), sde_core::Error> {
        let density = target.finite_log_density(&Tensor::from_slice(x, (1, 17), &Device::Cpu)?)?;
        Ok((density.value.to_vec1::<f64>()?[0], density.score.flatten_all()?.to_vec1()?))
    };
    let mut x = places(2, 5);
    x.extend([0.4, -1.2]);
    let (value, score) = log(&x)?;
    let largest = score.iter().fold(0.0, |m: f64, s| m.max(s.abs()));
    for (i, score) in score.iter().enumerate() {
        let at = |shift: f64| {
            let mut moved = x.clone();
            moved[i] += shift;
            log(&moved).map(|found| found.0)
        };
        let difference = (at(1e-6)? - at(-1e-6)?) / 2e-6;
        assert!((difference - score).abs() < 1e-6 * largest, "{i}: {difference} {score}");
    }
    let mean: f64 = (0..5).map(|i| x[3 * i]).sum::<f64>() / 5.0;
    (0..5).for_each(|i| x[3 * i] += 0.3);
    let expected = -0.5 * ((mean + 0.3).powi(2) - mean * mean) / 0.25;
    assert!((log(&x)?.0 - value - expected).abs() < 1e-9);
    Ok(())
}
