//! How numbers of benchmarks are written.

use super::statistics::Spread;

/// `2.43 s`, `13.1 ms`, `87.0 µs`.
pub fn seconds(s: f64) -> String {
    match s {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.*} ms", usize::from(s < 0.1), s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

/// `0.85 (0.83–0.88)`: the median and the quartiles; `–` where there is nothing to compare with.
pub fn ratio(spread: Option<Spread>) -> String {
    spread.map_or("–".into(), |s| format!("{:.2} ({:.2}–{:.2})", s.median, s.quartiles[0], s.quartiles[1]))
}

/// `1127 MB`.
pub fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or("–".into(), |b| format!("{:.0} MB", b as f64 / 1e6))
}
