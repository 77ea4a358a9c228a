//! What bonds hold together: lengths, angles and torsions, each with its force.
//!
//! For atoms i, j, k, l let F = x_i − x_j, G = x_j − x_k, H = x_l − x_k, A = F × G, B = H × G. The torsion is
//! φ = atan2((B × A)·G/|G|, A·B), zero where i and l are on one side, and
//! ∂φ/∂x_i = −(|G|/A²) A, ∂φ/∂x_l = (|G|/B²) B, ∂φ/∂x_j = −∂φ/∂x_i + T, ∂φ/∂x_k = −∂φ/∂x_l − T with
//! T = (F·G)/(A²|G|) A − (H·G)/(B²|G|) B: no division by sin φ.
//!
//! Reference: Blondel, Karplus 1996, "New formulation for derivatives of torsion angles", J. Comput. Chem. 17, eq. 20, 27.

use super::vector::{Vector, cross, dot, minus, mixed, norm, place, push};
use crate::Result;

/// ½ k (r − r₀)² between two atoms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bond {
    /// The two atoms.
    pub atoms: [usize; 2],
    /// k, in kJ/mol/nm².
    pub stiffness: f64,
    /// r₀, in nanometres.
    pub length: f64,
}

/// ½ k (θ − θ₀)² at the second of three atoms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Angle {
    /// The three atoms; the angle is at the second.
    pub atoms: [usize; 3],
    /// k, in kJ/mol/rad².
    pub stiffness: f64,
    /// θ₀, in radians.
    pub angle: f64,
}

/// k (1 + cos(nφ − δ)) about the line through the second and third of four atoms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Torsion {
    /// The four atoms.
    pub atoms: [usize; 4],
    /// k, in kJ/mol.
    pub barrier: f64,
    /// n.
    pub multiplicity: f64,
    /// δ, in radians.
    pub phase: f64,
}

impl Bond {
    pub(super) fn add(&self, places: &[f64], forces: &mut [f64]) -> f64 {
        let [i, j] = self.atoms;
        let between = minus(place(places, i), place(places, j));
        let r = norm(between);
        let away = r - self.length;
        // Two atoms in one place are pushed apart to no side.
        let force = if r > 0.0 { -self.stiffness * away / r } else { 0.0 };
        push(forces, i, force, between);
        push(forces, j, -force, between);
        0.5 * self.stiffness * away * away
    }
}

impl Angle {
    pub(super) fn add(&self, places: &[f64], forces: &mut [f64]) -> f64 {
        let [i, j, k] = self.atoms;
        let (u, v) = (minus(place(places, i), place(places, j)), minus(place(places, k), place(places, j)));
        let normal = cross(u, v);
        let height = norm(normal);
        let away = height.atan2(dot(u, v)) - self.angle;
        // ∂θ/∂x_i = u × n / (u² |n|): along the plane, across u.
        let at_i = mixed(1.0 / (dot(u, u) * height), cross(u, normal), 0.0, u);
        let at_k = mixed(1.0 / (dot(v, v) * height), cross(normal, v), 0.0, v);
        let force = -self.stiffness * away;
        push(forces, i, force, at_i);
        push(forces, k, force, at_k);
        push(forces, j, -force, mixed(1.0, at_i, 1.0, at_k));
        0.5 * self.stiffness * away * away
    }
}

/// F, G, H, A, B of a torsion.
struct Frame {
    f: Vector,
    g: Vector,
    h: Vector,
    a: Vector,
    b: Vector,
}

impl Frame {
    fn new(places: &[f64], [i, j, k, l]: [usize; 4]) -> Self {
        let third = place(places, k);
        let f = minus(place(places, i), place(places, j));
        let g = minus(place(places, j), third);
        let h = minus(place(places, l), third);
        Self { f, g, h, a: cross(f, g), b: cross(h, g) }
    }

    fn torsion(&self) -> f64 {
        (dot(cross(self.b, self.a), self.g) / norm(self.g)).atan2(dot(self.a, self.b))
    }
}

/// The torsion of four atoms, in (−π, π]: 0 where the first and last are on one side, positive clockwise seen along
/// the middle bond.
///
/// # Errors
/// If `places` (x, y, z of each atom in turn) does not hold one of the atoms, or one is named twice.
pub fn dihedral(places: &[f64], atoms: [usize; 4]) -> Result<f64> {
    super::check("a torsion", &atoms, places.len() / 3, &[])?;
    Ok(Frame::new(places, atoms).torsion())
}

impl Torsion {
    pub(super) fn add(&self, places: &[f64], forces: &mut [f64]) -> f64 {
        let [i, j, k, l] = self.atoms;
        let frame = Frame::new(places, self.atoms);
        let Frame { f, g, h, a, b } = frame;
        let (aa, bb, gg) = (dot(a, a), dot(b, b), norm(g));
        let at = self.multiplicity * frame.torsion() - self.phase;
        let at_i = mixed(-gg / aa, a, 0.0, b);
        let at_l = mixed(gg / bb, b, 0.0, a);
        let between = mixed(dot(f, g) / (aa * gg), a, -dot(h, g) / (bb * gg), b);
        let force = self.barrier * self.multiplicity * at.sin();
        push(forces, i, force, at_i);
        push(forces, l, force, at_l);
        push(forces, j, force, mixed(-1.0, at_i, 1.0, between));
        push(forces, k, force, mixed(-1.0, at_l, -1.0, between));
        self.barrier * (1.0 + at.cos())
    }
}
