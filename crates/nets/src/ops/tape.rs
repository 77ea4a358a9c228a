//! Whether Candle's tape keeps what second derivatives need.
//!
//! `backward` detaches each gradient before it uses it, so that the gradient of a gradient is **silently
//! partial**, unless the environment variable `CANDLE_GRAD_DO_NOT_DETACH` is 1 before a thread's first
//! `backward`. An operator whose fast backward leaves the tape must know: it asks Candle itself, by a
//! derivative whose value is known.

use candle_core::{Device, Result, Var};

thread_local! {
    static KEPT: bool = probe().unwrap_or(false);
}

/// Whether the gradient of a gradient is right on this thread, found by differentiating x⁴ twice.
///
/// To make it so, set `CANDLE_GRAD_DO_NOT_DETACH=1` in the environment before the process starts.
pub fn second_derivatives_are_taped() -> bool {
    KEPT.with(|&kept| kept)
}

fn probe() -> Result<bool> {
    let x = Var::new(1f64, &Device::Cpu)?;
    let first = x.sqr()?.sqr()?.backward()?;
    let Some(slope) = first.get(&x) else { return Ok(false) };
    if !slope.track_op() {
        return Ok(false);
    }
    let second = slope.backward()?;
    // d²x⁴/dx² = 12 at 1; a detached tape finds 4.
    Ok(match second.get(&x) {
        Some(curvature) => curvature.to_scalar::<f64>()? == 12.0,
        None => false,
    })
}
