//! The command line of `weights`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct WeightsArgs {
    /// The network: inception
    pub network: String,
    /// A file of pytorch-fid or torch-fidelity (.pth), of TorchScript (.pt), or .safetensors; or OWNER/NAME/FILE on the hub
    /// [default: a copy of pytorch-fid's file on the hub]
    #[arg(long, value_name = "FILE")]
    pub from: Option<String>,
    /// Where they go [default: where `eval-fid` looks for them]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}
