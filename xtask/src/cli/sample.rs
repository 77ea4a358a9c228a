//! The command line of `sample` and `samplers`.

use std::path::PathBuf;

use clap::Args;

use super::positive;

/// What samples are drawn towards.
#[derive(Debug, Args)]
pub struct Guide {
    /// Of a class-conditional run: a class, or `all` for every class in turn [default: all]
    #[arg(long, value_name = "K", conflicts_with = "oracle")]
    pub class: Option<String>,
    /// Weight of classifier-free guidance: 0 the network as it is, -1 without classes
    #[arg(long, value_name = "W", allow_negative_numbers = true, conflicts_with = "oracle")]
    pub guidance: Option<f64>,
    /// Guide only at times from A to B
    #[arg(long, value_name = "A-B", requires = "guidance")]
    pub guidance_interval: Option<String>,
    /// Keep the expected data in the range of the data
    #[arg(long, conflicts_with_all = ["threshold", "oracle"])]
    pub clip: bool,
    /// The same by each sample's own quantile Q (dynamic thresholding), such as 0.995
    #[arg(long, value_name = "Q", conflicts_with = "oracle")]
    pub threshold: Option<f64>,
}

/// What samples are made of, or have to agree with.
#[derive(Debug, Args)]
#[group(id = "edit", multiple = true, conflicts_with_all = ["oracle", "init"])]
pub struct Edit {
    /// Paint anew what is light in MASK, and keep the rest of IMAGE as it is
    #[arg(long, num_args = 2, value_names = ["MASK", "IMAGE"], conflicts_with_all = ["colourise", "enlarge", "image", "encode"])]
    pub inpaint: Option<Vec<PathBuf>>,
    /// Give a grey image colours
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["enlarge", "image", "encode"])]
    pub colourise: Option<PathBuf>,
    /// Give a small image details: its sides divide those of the run's images
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["image", "encode"])]
    pub enlarge: Option<PathBuf>,
    /// How the known part is kept to: replacement, or gradient (better, one more derivative of the network)
    /// [default: replacement]
    #[arg(long, value_name = "WAY")]
    pub by: Option<String>,
    /// With replacement, run every step R times, with the forward process in between
    #[arg(long, value_name = "R", value_parser = positive::<usize>)]
    pub resample: Option<usize>,
    /// Vary an image: noise it, and sample from there
    #[arg(long, value_name = "IMAGE", conflicts_with = "encode")]
    pub image: Option<PathBuf>,
    /// The part of the grid's steps that is run: near 0 leaves the image, 1 forgets it
    #[arg(long, value_name = "S", default_value_t = 0.5, requires = "image")]
    pub strength: f64,
    /// Carry images up to their latents by the probability flow, and down again, not denoised unless asked; keeps
    /// latents.npy
    #[arg(long, num_args = 1.., value_name = "IMAGE", conflicts_with_all = ["n", "seeds"])]
    pub encode: Vec<PathBuf>,
    /// Go from each latent to the next in N pictures, along the sphere: those of --encode, or of --seeds
    #[arg(long, value_name = "N", value_parser = positive::<usize>, conflicts_with_all = ["inpaint", "colourise", "enlarge", "image"])]
    pub interpolate: Option<usize>,
}

#[derive(Debug, Args)]
pub struct Sample {
    /// The run's directory [default: the newest under checkpoints/]
    pub run: Option<PathBuf>,
    /// The sampler, such as tab3, ddim or rk45; `samplers` lists all [default: the preset's]
    #[arg(long, value_name = "NAME")]
    pub sampler: Option<String>,
    /// The degree of a family of samplers: `--sampler tab --degree 2` is tab2
    #[arg(long, value_name = "R", requires = "sampler")]
    pub degree: Option<usize>,
    /// Stochasticity of ddim and its kin, 0 to 1 [default: the preset's]
    #[arg(long, value_name = "ETA")]
    pub eta: Option<f64>,
    /// Stochasticity of the λ-family, 0 or more [default: the preset's]
    #[arg(long, value_name = "LAMBDA")]
    pub lambda: Option<f64>,
    /// Steps of the time grid; `samplers` says how many network calls each is [default: the preset's]
    #[arg(long, value_name = "N", value_parser = positive::<usize>)]
    pub steps: Option<usize>,
    /// The time grid: auto, uniform, power, quadratic, cubic, karras, log-rho, discrete [default: the preset's]
    #[arg(long, value_name = "NAME")]
    pub grid: Option<String>,
    #[command(flatten)]
    pub guide: Guide,
    #[command(flatten)]
    pub edit: Edit,
    /// How many samples: those numbered 0 to N-1 [default: 64]
    #[arg(long, conflicts_with = "seeds", value_parser = positive::<u32>)]
    pub n: Option<u32>,
    /// Which samples: number k is the same in any range, at any batch size
    #[arg(long, value_name = "A-B")]
    pub seeds: Option<String>,
    /// Seed of the whole family of samples
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Samples drawn together; changes nothing but memory
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive::<usize>)]
    pub batch: usize,
    #[command(flatten)]
    pub density: super::Oracle,
    /// The initial states x_T, .npy [B, D]; their number is that of the samples
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// The noise of a stochastic sampler, .npy [steps, B, D]
    #[arg(long, value_name = "FILE", requires = "init")]
    pub noise: Option<PathBuf>,
    /// Where samples go: a .npy file, or (of a run) a directory for picture and array
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// End with the expected data given the last state, one more call (presets do)
    #[arg(long, conflicts_with = "no_denoise")]
    pub denoise: bool,
    /// End with the last state itself (known densities do)
    #[arg(long)]
    pub no_denoise: bool,
    #[command(flatten)]
    pub opening: super::Opening,
}

#[derive(Debug, Args)]
pub struct Samplers {
    /// Print the rows of the table in docs/solvers.md
    #[arg(long)]
    pub markdown: bool,
}
