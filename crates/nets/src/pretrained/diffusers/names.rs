//! The names of a `UNet2DModel`'s tensors, from ours.

use crate::params::layout;
use crate::pretrained::dictionary::{Dictionary, Form, Word};
use crate::{Result, Unet, UnetConfig};

/// Every tensor of a network under both names.
pub(super) fn dictionary(net: &UnetConfig, sample_shape: &[usize]) -> Result<Dictionary> {
    let levels = net.multipliers.len();
    let words = layout(|b| Unet::new(b, net, sample_shape))?.into_iter().map(|(ours, entry)| {
        let theirs = their_names(&ours, levels);
        let linear = theirs.len() > 1 && entry.shape.len() == 4;
        let form = if linear { Form::Linear } else { Form::Same };
        Word { ours, shape: entry.shape, theirs, form }
    });
    Ok(Dictionary(words.collect()))
}

/// Their names of our tensor, the newest first; two for the maps of attention.
fn their_names(ours: &str, levels: usize) -> Vec<String> {
    let parts: Vec<&str> = ours.split('.').collect();
    let one = |name: String| vec![name];
    match parts.as_slice() {
        ["time", layer, kind] => {
            let number = if *layer == "0" { 1 } else { 2 };
            one(format!("time_embedding.linear_{number}.{kind}"))
        }
        ["norm_out", kind] => one(format!("conv_norm_out.{kind}")),
        ["mid", "block", j, rest @ ..] => one(format!("mid_block.resnets.{j}.{}", in_block(rest))),
        ["mid", "attention", rest @ ..] => in_attention("mid_block.attentions.0", rest),
        [path @ ("down" | "up"), level, rest @ ..] => {
            let level = match (*path, level.parse::<usize>()) {
                ("up", Ok(level)) => (levels - 1).saturating_sub(level).to_string(),
                _ => (*level).to_owned(),
            };
            let block = format!("{path}_blocks.{level}");
            match rest {
                ["block", j, rest @ ..] => one(format!("{block}.resnets.{j}.{}", in_block(rest))),
                ["attention", j, rest @ ..] => in_attention(&format!("{block}.attentions.{j}"), rest),
                [resample, kind] => one(format!("{block}.{resample}rs.0.conv.{kind}")),
                _ => one(ours.to_owned()),
            }
        }
        _ => one(ours.to_owned()),
    }
}

/// A tensor of a residual block.
fn in_block(rest: &[&str]) -> String {
    match rest {
        ["embedding", kind] => format!("time_emb_proj.{kind}"),
        ["shortcut", kind] => format!("conv_shortcut.{kind}"),
        rest => rest.join("."),
    }
}

/// A tensor of attention.
fn in_attention(block: &str, rest: &[&str]) -> Vec<String> {
    let (names, kind): (&[&str], _) = match rest {
        ["norm", kind] => (&["group_norm"], kind),
        ["query", kind] => (&["to_q", "query"], kind),
        ["key", kind] => (&["to_k", "key"], kind),
        ["value", kind] => (&["to_v", "value"], kind),
        ["output", kind] => (&["to_out.0", "proj_attn"], kind),
        _ => (&[], &""),
    };
    names.iter().map(|name| format!("{block}.{name}.{kind}")).collect()
}
