//! Sampling and likelihood where the truth is known, from files to files: against runs of an independent implementation, closed
//! forms, and themselves at another batch size.
//!
//! The references are those of the solver crate, whose own tests meet them without files in between.

use std::collections::BTreeMap;
use std::path::Path;

use nalgebra::DMatrix;
use ndarray::{ArrayD, Axis};
use sde_core::oracle::Mixture;
use sde_core::process::{Cosine, Discrete, Edm, LinearPath, SubVp, Ve, Vp};
use sde_core::{LinearSde, ScalarSde};
use sde_data::read::npy::NpyArray;
use sde_data::read::npz::{read_npz, write_npz};
use serde_json::json;

use crate::support::{Place, array, gap, rows};

/// A reference file; its density is put at `density.npz`.
struct Golden(BTreeMap<String, NpyArray>);

impl Golden {
    fn load(name: &str, place: &Place) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/solvers/tests/golden");
        let golden = Self(read_npz(&folder.join(format!("{name}.npz"))).expect("a reference file"));
        let density = golden.0.iter().filter(|(key, _)| ["w", "mu", "cov"].contains(&key.as_str()));
        let density = density.map(|(key, value)| (key.as_str(), value));
        write_npz(&place.path("density.npz"), density).expect("a density");
        golden
    }

    fn get(&self, key: &str) -> ArrayD<f64> {
        self.0[key].to_f64()
    }
}

/// What the references call a sampler, as arguments.
fn sampler(reference: &str) -> Option<String> {
    if let Some(lambda) = reference.strip_prefix("stochddim_lam") {
        return Some(format!("stochastic-ddim --set sampler.lambda={lambda} --noise noise.npy"));
    }
    if let Some(lambda) = reference.strip_prefix("em_lam") {
        return Some(format!("em --set sampler.lambda={lambda} --noise noise.npy"));
    }
    match reference {
        "euler_t" => Some("euler".into()),
        "ei_score" => Some("ei-score".into()),
        tab if tab.starts_with("tab") => Some(tab.into()),
        "rhork_2heun" => Some("rho-heun2".into()),
        "rhork_3kutta" => Some("rho-kutta3".into()),
        "rhork_4rk" => Some("rho-rk4".into()),
        _ => None,
    }
}

#[test]
fn samplers_agree_with_an_independent_implementation() {
    let place = Place::new();
    let mut compared = 0;
    for (process, data) in [("vp", "gmm8"), ("ve", "ani4"), ("subvp", "gmm8")] {
        let golden = Golden::load(&format!("cont_{process}_{data}"), &place);
        place.put("init.npy", &golden.get("xT"));
        for key in golden.0.keys() {
            let Some((grid, method)) = key.split_once("__") else { continue };
            let Some(sampler) = sampler(method) else { continue };
            let times = golden.get(&format!("{grid}__t"));
            place.put("times.npy", &times);
            place.put("noise.npy", &rows(&golden.get("noise"), 0..times.len() - 1));
            place.run(&format!(
                "sample --oracle density.npz --process {process} --sampler {sampler} --init init.npy --times times.npy \
                 --out x.npy"
            ));
            let expected = golden.get(key);
            let scale = expected.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
            let gap = gap(&place.get("x.npy"), &expected);
            assert!(gap < 1e-11 * scale, "{process} {data} {key}: {gap:e}");
            compared += 1;
        }
    }
    // Thirteen methods on six grids for VP; twelve on three for the others, where the score integrator was not run.
    assert_eq!(compared, 78 + 36 + 36);
}

/// Samplers of diffusers and k-diffusion, as process and arguments; k-diffusion's are on Karras's grid.
const PEERS: [(&str, &str, &str); 19] = [
    ("ddim_eta0", "ddpm", "ddim"),
    ("ddim_eta1", "ddpm", "ddim --eta 1"),
    ("ddpm_small", "ddpm", "ddpm"),
    ("ddpm_large", "ddpm", "ddpm-large"),
    ("pndm_prk", "ddpm", "f-pndm"),
    ("pndm_skipprk", "ddpm", "plms"),
    ("deis_logrho_o2", "ddpm", "log-ab1 --set sampler.lower_final=true"),
    ("dpmpp_2m_midpoint_zero", "ddpm", "dpm++-2m --set sampler.lower_final=true"),
    ("dpmpp_2m_heun_sigmamin", "ddpm", "data-ab1 --set sampler.lower_final=true"),
    ("dpm_2m_sigmamin", "ddpm", "dpm-2m --set sampler.lower_final=true"),
    ("dpm_3m_sigmamin", "ddpm", "dpm-3m --set sampler.lower_final=true"),
    ("sde_dpmpp_2m_zero", "ddpm", "sde-dpm++-2m --lambda 1 --set sampler.lower_final=true"),
    ("unipc_bh2_o2", "ddpm", "unipc2 --set sampler.lower_final=true"),
    ("kd_euler_karras", "edm", "ddim"),
    ("kd_lms4_karras", "edm", "rho-ab3"),
    ("kd_heun_karras", "edm", "rho-heun2"),
    ("kd_dpm2_karras", "edm", "dpm2"),
    ("kd_dpmpp2m_karras", "edm", "dpm++-2m"),
    ("kd_euler_ancestral_karras", "edm", "ddim --eta 1"),
];

#[test]
fn samplers_agree_with_two_libraries_from_files_to_files() {
    let (place, steps) = (Place::new(), 10);
    let golden = Golden::load("samplers_gmm8", &place);
    place.put("noise.npy", &rows(&golden.get("noise"), 0..50));
    for (name, process, arguments) in PEERS {
        let of = |what: &str| golden.get(&format!("{name}__N{steps}__{what}"));
        let key = format!("{name}__N{steps}__sigmas");
        let times: Vec<f64> = match (process, golden.0.contains_key(&key)) {
            // Index n of the peer is t = n + 1; with pndm the last step leads to index 0.
            (_, false) => {
                let last = if name.starts_with("pndm") { None } else { Some(0.0) };
                (0..steps).rev().map(|i| (100 * i + 1) as f64).chain(last).collect()
            }
            ("edm", _) => of("sigmas").into_iter().collect(),
            _ => of("sigmas").into_iter().map(|sigma| Discrete::ddpm().t_of_rho(sigma)).collect(),
        };
        place.put("times.npy", &array(&[times.len()], times));
        let scale = if process == "edm" { 80.0 } else { 1.0 };
        place.put("init.npy", &(golden.get("xT") * scale));
        place.run(&format!(
            "sample --oracle density.npz --process {process} --sampler {arguments} --init init.npy --times times.npy \
             --noise noise.npy --out x.npy"
        ));
        let expected = of("x");
        let scale = expected.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
        let gap = gap(&place.get("x.npy"), &expected);
        assert!(gap < 1e-11 * scale, "{name}: {gap:e}");
    }
}

const FLOWS: [(&str, &str); 4] = [("vp", "gmm8"), ("ve", "ani4"), ("edm", "gmm8"), ("subvp", "ani4")];

#[test]
fn the_probability_flow_ends_where_an_independent_integration_does() {
    let place = Place::new();
    for (process, data) in FLOWS {
        let golden = Golden::load(&format!("pfode_{process}_{data}"), &place);
        place.put("init.npy", &golden.get("xT"));
        // No times: from T to where sampling of this process stops, as in the reference.
        let record = place.record(&format!(
            "sample --oracle density.npz --process {process} --sampler rk45 --init init.npy --out x.npy \
             --set sampler.rtol=1e-13 --set sampler.atol=1e-14"
        ));
        assert_eq!(record["times"], json!(golden.get("times").iter().collect::<Vec<_>>()));
        let gap = gap(&place.get("x.npy"), &golden.get("x_best"));
        assert!(gap < 1e-10, "{process} {data}: {gap:e}");
    }
}

#[test]
fn log_densities_agree_with_an_independent_integration_under_either_prior() {
    let place = Place::new();
    for (process, data) in FLOWS {
        let golden = Golden::load(&format!("pfode_{process}_{data}"), &place);
        place.put("points.npy", &golden.get("x0"));
        let line = format!(
            "eval-nll --oracle density.npz --process {process} --points points.npy --out log_p.npy \
             --set sampler.rtol=1e-11 --set sampler.atol=1e-11"
        );
        for (prior, key) in
            [("exact", "logp_ode_exactprior"), ("exact", "logp_closed_t0"), ("standard", "logp_ode_stdprior")]
        {
            let record = place.record(&format!("{line} --prior {prior}"));
            let found = place.get("log_p.npy");
            let gap = gap(&found, &golden.get(key));
            assert!(gap < 1e-8, "{process} {data} {key}: {gap:e}");
            assert_eq!((&record["prior"], &record["n"]), (&json!(prior), &json!(found.len())));
            let nats = record["nats"].as_f64().expect("a number");
            assert!((nats + found.mean().expect("some points")).abs() < 1e-12, "{process} {data}");
        }
        // The standard prior is what is taken when nothing is said.
        assert_eq!(place.record(&line)["prior"], "standard");
    }
}

fn processes() -> Vec<(&'static str, Box<dyn LinearSde>)> {
    let betas: Vec<f64> = (0..1000).map(|n| 1e-4 + (0.02 - 1e-4) * f64::from(n) / 999.0).collect();
    vec![
        ("vp", Box::new(Vp::STANDARD)),
        ("subvp", Box::new(SubVp::STANDARD)),
        ("ve", Box::new(Ve::STANDARD)),
        ("edm", Box::new(Edm::STANDARD)),
        ("cosine", Box::new(Cosine)),
        ("linear", Box::new(LinearPath)),
        ("ddpm", Box::new(Discrete::new(&betas).expect("betas"))),
    ]
}

#[test]
fn with_the_exact_law_at_the_end_the_likelihood_is_that_of_the_start_for_every_process() {
    let place = Place::new();
    place.write(
        "density.json",
        json!({
            "w": [0.3, 0.7], "mu": [[-1.0, 0.5], [1.0, 0.0]],
            "cov": [[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.4]]],
        })
        .to_string(),
    );
    let covariances = [[0.3, 0.1, 0.1, 0.2], [0.2, 0.0, 0.0, 0.4]].map(|c| DMatrix::from_row_slice(2, 2, &c));
    let law = Mixture::new(&[0.3, 0.7], &[vec![-1.0, 0.5], vec![1.0, 0.0]], &covariances).expect("a mixture");
    let points = array(&[4, 2], [-1.2, 0.1, 0.9, 0.3, 0.0, 0.0, 2.0, -1.0]);
    place.put("points.npy", &points);
    for (process, sde) in processes() {
        let line =
            format!("eval-nll --oracle density.json --process {process} --points points.npy --prior exact");
        place.run(&format!("{line} --out log_p.npy"));
        let marginal = law.marginal(sde.as_ref(), sde.span().sampling).expect("a law");
        let log_p = |x: ndarray::ArrayViewD<'_, f64>| {
            let x: Vec<f64> = x.iter().copied().collect();
            marginal.at(&x).expect("a density").log_density
        };
        let exact: Vec<f64> = points.axis_iter(Axis(0)).map(log_p).collect();
        let gap = gap(&place.get("log_p.npy"), &array(&[4], exact.iter().copied()));
        assert!(gap < 1e-6, "{process}: {gap:e}");

        // With random divergence the truth lies within the error bar: five of them, over seven processes.
        let record = place.record(&format!(
            "{line} --divergence rademacher --probes 2 --repeats 8 \
             --set sampler.rtol=1e-6 --set sampler.atol=1e-6"
        ));
        let number = |key: &str| record[key].as_f64().expect("a number");
        let error = number("nats") + exact.iter().sum::<f64>() / 4.0;
        let bar = number("estimator_error_nats");
        assert!(bar > 0.0 && error.abs() < 5.0 * bar + 1e-5, "{process}: {error:e} with a bar of {bar:e}");
    }
}

#[test]
fn a_density_may_be_npz_or_json_and_leave_out_what_goes_without_saying() {
    let place = Place::new();
    let one = |value: ArrayD<f64>| NpyArray::F64(value);
    let (mu, cov) = (array(&[2], [1.0, -2.0]), array(&[2, 2], [2.0, 0.5, 0.5, 1.0]));
    let full: [(&str, NpyArray); 3] = [
        ("w", one(array(&[1], [1.0]))),
        ("mu", one(array(&[1, 2], mu.iter().copied()))),
        ("cov", one(array(&[1, 2, 2], cov.iter().copied()))),
    ];
    write_npz(&place.path("full.npz"), full.iter().map(|(key, value)| (*key, value))).expect("a density");
    let bare = [("mu", one(mu)), ("cov", one(cov))];
    write_npz(&place.path("bare.npz"), bare.iter().map(|(key, value)| (*key, value))).expect("a density");
    place.write("bare.json", r#"{"mu": [1, -2], "cov": [[2, 0.5], [0.5, 1]]}"#);
    place.write("full.json", r#"{"w": [3], "mu": [[1, -2]], "cov": [[[2, 0.5], [0.5, 1]]]}"#);
    let samples = |file: &str| {
        place.run(&format!("sample --oracle {file} --sampler tab2 --steps 5 --n 4 --out x.npy"));
        place.get("x.npy")
    };
    let expected = samples("full.npz");
    for file in ["bare.npz", "bare.json", "full.json"] {
        assert_eq!(samples(file), expected, "{file}");
    }
}

#[test]
fn a_sample_is_the_same_alone_in_a_range_and_in_a_batch() {
    let place = Place::new();
    Golden::load("pfode_vp_gmm8", &place);
    for sampler in ["tab3", "ddim", "ddpm", "stochastic-ddim", "em", "rk45"] {
        let line = format!("sample --oracle density.npz --sampler {sampler} --steps 6");
        place.run(&format!("{line} --n 8 --out all.npy"));
        let all = place.get("all.npy");
        assert_eq!(all.shape(), [8, 2]);
        for (seeds, range) in [("3-5", 3..6), ("6-6", 6..7)] {
            place.run(&format!("{line} --seeds {seeds} --out some.npy"));
            assert_eq!(place.get("some.npy"), rows(&all, range), "{sampler}, {seeds}");
        }
        place.run(&format!("{line} --n 8 --seed 1 --out other.npy"));
        assert!(gap(&place.get("other.npy"), &all) > 1e-3, "{sampler}: the seed changes nothing");
    }
}

#[test]
fn a_log_density_is_the_same_alone_and_among_64() {
    let place = Place::new();
    let golden = Golden::load("pfode_vp_gmm8", &place);
    let points = golden.get("x0");
    let many = array(&[64, 2], points.iter().copied().cycle().take(128));
    place.put("many.npy", &many);
    place.put("one.npy", &rows(&points, 5..6));
    for divergence in ["exact", "rademacher"] {
        let line = format!(
            "eval-nll --oracle density.npz --divergence {divergence} --set sampler.rtol=1e-6 --out out.npy"
        );
        place.run(&format!("{line} --points many.npy"));
        let all = place.get("out.npy");
        place.run(&format!("{line} --points many.npy --batch 3"));
        assert_eq!(place.get("out.npy"), all, "{divergence}");
        if divergence == "exact" {
            place.run(&format!("{line} --points one.npy"));
            assert_eq!(place.get("out.npy"), rows(&all, 5..6));
        }
    }
}

#[test]
fn settings_and_times_are_taken() {
    let place = Place::new();
    Golden::load("pfode_vp_gmm8", &place);
    let line = "sample --oracle density.npz --n 4 --out x.npy";
    place.run(&format!("{line} --steps 4 --grid uniform"));
    let uniform = place.get("x.npy");
    place.put("times.npy", &array(&[5], (0..5).map(|i| 1.0 + f64::from(i) / 4.0 * (1e-3 - 1.0))));
    let record = place.record(&format!("{line} --times times.npy"));
    assert!(gap(&place.get("x.npy"), &uniform) < 1e-12);
    assert_eq!(record["nfe"], 4);

    let calls = |rtol: &str| {
        let record = place
            .record(&format!("{line} --sampler rk45 --set sampler.rtol={rtol} --set sampler.atol={rtol}"));
        record["nfe"]["mean"].as_f64().or(record["nfe"].as_f64()).expect("calls")
    };
    assert!(calls("1e-9") > 2.0 * calls("1e-3"));

    let with = |option: &str| {
        let record = place.record(&format!("{line} --steps 4 --grid uniform {option}"));
        (record["nfe"].as_u64().expect("calls"), place.get("x.npy"))
    };
    assert_eq!(with("--no-denoise"), (4, uniform.clone()), "a known density is not denoised unless asked");
    let (calls, denoised) = with("--denoise");
    assert_eq!(calls, 5);
    assert!(gap(&denoised, &uniform) > 1e-6);
}

#[test]
fn predictors_and_correctors_agree_with_the_published_ones() {
    let place = Place::new();
    let mut compared = 0;
    for process in ["vp", "ve", "subvp"] {
        let golden = Golden::load(&format!("pc_{process}"), &place);
        place.put("init.npy", &golden.get("xT"));
        place.put("times.npy", &golden.get("t"));
        place.put("noise.npy", &golden.get("noise"));
        for (key, sampler) in [("em", "pc-em"), ("rd", "pc-reverse-diffusion"), ("anc", "pc-ancestral")] {
            let line = format!(
                "sample --oracle density.npz --process {process} --sampler {sampler} --init init.npy --times times.npy \
                 --noise noise.npy --set sampler.corrector={{snr=0.16,steps=1,norms=\"batch\"}} --out x.npy"
            );
            if !golden.0.contains_key(&format!("{key}_pc__x_mean")) {
                assert!(place.call(&line).stderr.contains("reverse-diffusion"), "{process}: {key}");
                continue;
            }
            place.run(&line);
            let expected = golden.get(&format!("{key}_pc__x_mean"));
            let scale = expected.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
            let gap = gap(&place.get("x.npy"), &expected);
            assert!(gap < 1e-10 * scale, "{process} {key}: {gap:e}");
            compared += 1;
        }
    }
    assert_eq!(compared, 8);
}

/// The exact variances of the noise are a sampler that is exact for Gaussian data, in two steps.
#[test]
fn exact_variances_need_no_network() {
    let place = Place::new();
    place.write("density.json", r#"{"mu": [0.5, -0.2], "cov": [[0.01, 0], [0, 1]]}"#);
    place.run(
        "sample --oracle density.json --sampler learned-variance --eta 1 --steps 2 --n 4000 --out x.npy --set sampler.grid=uniform",
    );
    let x = place.get("x.npy");
    for (column, (mean, variance)) in [(0.5, 0.01), (-0.2, 1.0)].into_iter().enumerate() {
        let values: Vec<f64> = x.index_axis(Axis(1), column).iter().copied().collect();
        let n = values.len() as f64;
        let found = values.iter().sum::<f64>() / n;
        let spread = values.iter().map(|v| (v - found).powi(2)).sum::<f64>() / n;
        // At t = 1e-3 the noise adds 1.1e-4; standard errors of mean and variance of normal samples.
        let exact = variance + 1.1e-4;
        assert!((found - mean).abs() < 4.0 * (exact / n).sqrt() + 1e-4, "{column}: {found}");
        assert!((spread - exact).abs() < 4.0 * exact * (2.0 / n).sqrt(), "{column}: {spread}, not {exact}");
    }
}
