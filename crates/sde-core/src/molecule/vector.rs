//! Vectors of three numbers.

/// A place or a direction in space.
pub(super) type Vector = [f64; 3];

/// The place of an atom.
pub(super) fn place(places: &[f64], atom: usize) -> Vector {
    [places[3 * atom], places[3 * atom + 1], places[3 * atom + 2]]
}

/// forces[atom] += c·v.
pub(super) fn push(forces: &mut [f64], atom: usize, c: f64, v: Vector) {
    for (force, v) in forces[3 * atom..3 * atom + 3].iter_mut().zip(v) {
        *force += c * v;
    }
}

pub(super) fn minus(a: Vector, b: Vector) -> Vector {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(super) fn dot(a: Vector, b: Vector) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: Vector, b: Vector) -> Vector {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

pub(super) fn norm(a: Vector) -> f64 {
    dot(a, a).sqrt()
}

/// c·a + d·b.
pub(super) fn mixed(c: f64, a: Vector, d: f64, b: Vector) -> Vector {
    [c * a[0] + d * b[0], c * a[1] + d * b[1], c * a[2] + d * b[2]]
}
