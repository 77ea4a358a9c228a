//! The tiles of images, taken by *bands*: the tiles side by side in four rows of pixels.
//!
//! Between the pixels of a block of bands and the matrices of Winograd's algorithm: V and D from images, y from M
//! ([`super::winograd`] has the formulas). Entry τ of a row of a matrix is tile `τ mod across` of band `τ / across`;
//! rows are filled up to whole lanes.

use rayon::prelude::*;

use super::super::kernel::{LANES, Real, vectorised, with_scratch};
use super::super::patches::Geometry;
use super::CandleResult;
use super::epilogue::Epilogue;
use super::tiles::{Input, Lane, Output, OutputAdjoint, Side, both_sides};

/// The number of points.
pub(super) const POINTS: usize = 36;
/// The side of an output tile.
pub(super) const TILE: usize = 4;
/// The side of an input tile.
const INPUT: usize = 6;
/// Between the matrices of two channels, so that they do not compete for the same lines of a cache.
pub(super) const PAD: usize = 16;

/// The size of one channel of an image.
#[derive(Clone, Copy)]
pub(super) struct Plane {
    height: usize,
    width: usize,
}

impl Plane {
    pub(super) fn len(self) -> usize {
        self.height * self.width
    }

    /// A row of pixels, empty outside of the image.
    #[inline(always)]
    fn row<T>(self, pixels: &[T], row: Option<usize>) -> &[T] {
        row.and_then(|row| pixels.get(row * self.width..(row + 1) * self.width)).unwrap_or_default()
    }
}

/// The images of a convolution, cut into tiles of its output.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    input: Plane,
    pub(super) output: Plane,
    /// Pixels that a tile of the input begins before its place.
    padding: usize,
    /// Tiles side by side.
    across: usize,
    /// Bands of one image.
    pub(super) bands: usize,
}

impl Tiling {
    pub(super) fn new(geometry: &Geometry) -> CandleResult<Self> {
        let Geometry { height, width, padding: [padding, ..], .. } = *geometry;
        let input = Plane { height, width };
        let [height, width] = geometry.output()?;
        let [bands, across] = [height, width].map(|side| side.div_ceil(TILE));
        Ok(Self { input, output: Plane { height, width }, padding, across, bands })
    }

    /// How many bands make about `tiles` tiles.
    pub(super) fn bands_of(self, tiles: usize) -> usize {
        tiles.div_ceil(self.across).max(1)
    }

    /// The values between one channel's matrices and the next's, for a block of `bands` bands.
    pub(super) fn stride(self, bands: usize) -> usize {
        POINTS * self.columns(bands) + PAD
    }

    /// The tiles of `bands` bands, in whole lanes.
    pub(super) fn columns(self, bands: usize) -> usize {
        (bands * self.across).next_multiple_of(LANES)
    }
}

/// Some bands of a group of samples; band b is band `b mod bands` of sample `b / bands`.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) tiling: Tiling,
    pub(super) first: usize,
    pub(super) bands: usize,
}

impl Block {
    /// V: for each channel 36 rows of tiles.
    pub(super) fn transform_inputs<T: Real>(&self, x: &[T], channels: usize, stride: usize, v: &mut [T]) {
        let Tiling { input, padding, .. } = self.tiling;
        self.transform::<T, Input, INPUT>((x, input, padding), channels, stride, v);
    }

    /// D: for each filter 36 rows of tiles.
    pub(super) fn transform_gradients<T: Real>(
        &self,
        grad: &[T],
        filters: usize,
        stride: usize,
        d: &mut [T],
    ) {
        self.transform::<T, OutputAdjoint, TILE>((grad, self.tiling.output, 0), filters, stride, d);
    }

    /// For each channel of images 36 rows, from tiles of J×J pixels that begin `margin` pixels before their place.
    fn transform<T: Real, S: Side<T, J, 6>, const J: usize>(
        &self,
        (images, size, margin): (&[T], Plane, usize),
        channels: usize,
        stride: usize,
        out: &mut [T],
    ) {
        let (tiling, columns) = (self.tiling, self.tiling.columns(self.bands));
        out.par_chunks_mut(stride).enumerate().for_each(|(channel, out)| {
            with_scratch(J * J * columns, |tiles| {
                if columns > self.bands * tiling.across {
                    // Lanes beyond the last tile count in the sums of the weight gradient: they are zeros.
                    tiles.fill(T::zero());
                }
                vectorised(
                    #[inline(always)]
                    || {
                        for band in 0..self.bands {
                            let (sample, row) = self.place(band);
                            let plane = &images[(sample * channels + channel) * size.len()..][..size.len()];
                            for i in 0..J {
                                let at = i * J * columns + band * tiling.across;
                                let row = size.row(plane, (row + i).checked_sub(margin));
                                spread::<T, J>(row, margin, tiling.across, &mut tiles[at..], columns);
                            }
                        }
                        for t in (0..columns).step_by(LANES) {
                            both_sides::<T, S, J, 6>(
                                #[inline(always)]
                                |i, j| Lane::load(&tiles[(i * J + j) * columns + t..][..LANES]),
                                #[inline(always)]
                                |i, j, entry| entry.store(&mut out[(i * 6 + j) * columns + t..][..LANES]),
                            );
                        }
                    },
                );
            });
        });
    }

    /// y, plane by plane, with the epilogue of the samples whose first plane is `first_plane`.
    pub(super) fn transform_outputs<T: Real>(
        &self,
        m: &[T],
        filters: usize,
        y: &mut [T],
        first_plane: usize,
        epilogue: &Epilogue<'_, T>,
    ) {
        let (tiling, columns) = (self.tiling, self.tiling.columns(self.bands));
        let Plane { height, width } = tiling.output;
        let samples = y.len() / (filters * tiling.output.len());
        // Every sample's plane of one filter in one task, so that the lanes are full.
        let mut planes: Vec<Vec<&mut [T]>> = (0..filters).map(|_| Vec::with_capacity(samples)).collect();
        for (index, plane) in y.chunks_exact_mut(tiling.output.len()).enumerate() {
            planes[index % filters].push(plane);
        }
        planes.into_par_iter().enumerate().for_each(|(k, mut planes)| {
            with_scratch(TILE * TILE * columns, |tiles| {
                vectorised(
                    #[inline(always)]
                    || {
                        for t in (0..columns).step_by(LANES) {
                            both_sides::<T, Output, 6, 4>(
                                #[inline(always)]
                                |i, j| {
                                    let point = (i * 6 + j) * filters + k;
                                    Lane::load(&m[point * columns + t..][..LANES])
                                },
                                #[inline(always)]
                                |i, j, entry| {
                                    entry.store(&mut tiles[(i * TILE + j) * columns + t..][..LANES])
                                },
                            );
                        }
                        for band in 0..self.bands {
                            let (sample, row) = self.place(band);
                            let shift = epilogue.shift(first_plane + sample * filters + k, filters);
                            for i in 0..TILE.min(height - row) {
                                let at = i * TILE * columns + band * tiling.across;
                                let to = &mut planes[sample][(row + i) * width..][..width];
                                collect(&tiles[at..], columns, |v| epilogue.value(v, shift), to);
                            }
                        }
                    },
                );
            });
        });
    }

    /// The sample of a band of this block, and the band's first row of pixels.
    #[inline(always)]
    fn place(&self, band: usize) -> (usize, usize) {
        let band = self.first + band;
        (band / self.tiling.bands, band % self.tiling.bands * TILE)
    }
}

/// Tiles that the general [`spread`] and [`collect`] take at a time.
const MANY: usize = 16;

/// One row of pixels as the J entries that it gives to each of the `across` tiles of a band: entry j of tile t at
/// `tiles[j · columns + t]`. Tiles begin `margin` pixels before their place, and overlap where J is six; outside of the
/// row are zeros.
#[inline(always)]
fn spread<T: Real, const J: usize>(row: &[T], margin: usize, across: usize, tiles: &mut [T], columns: usize) {
    match across {
        2 => spread_tiles::<T, J, 2>(row, margin, 0, tiles, columns),
        4 => spread_tiles::<T, J, 4>(row, margin, 0, tiles, columns),
        8 => spread_tiles::<T, J, 8>(row, margin, 0, tiles, columns),
        9 => spread_tiles::<T, J, 9>(row, margin, 0, tiles, columns),
        MANY.. => {
            for first in (0..across).step_by(MANY) {
                let first = first.min(across - MANY);
                spread_tiles::<T, J, MANY>(row, margin, first, &mut tiles[first..], columns);
            }
        }
        _ => {
            for j in 0..J {
                for (t, to) in tiles[j * columns..][..across].iter_mut().enumerate() {
                    let pixel = (TILE * t + j).checked_sub(margin).and_then(|p| row.get(p));
                    *to = pixel.copied().unwrap_or(T::zero());
                }
            }
        }
    }
}

/// [`spread`] of W tiles from the given one on.
#[inline(always)]
fn spread_tiles<T: Real, const J: usize, const W: usize>(
    row: &[T],
    margin: usize,
    first: usize,
    tiles: &mut [T],
    columns: usize,
) {
    let mut pixels = [[T::zero(); TILE]; MANY + 1];
    let start = TILE * first;
    // At the left edge, zeros stand before the first pixel.
    let (from, to) = if start == 0 { (0, margin) } else { (start - margin, 0) };
    let row = row.get(from..).unwrap_or_default();
    let pixels_flat = pixels.as_flattened_mut();
    let count = row.len().min(TILE * W + J - TILE - to);
    pixels_flat[to..to + count].copy_from_slice(&row[..count]);
    for j in 0..J {
        let mut entries = [T::zero(); W];
        for (t, entry) in entries.iter_mut().enumerate() {
            *entry = pixels[t + j / TILE][j % TILE];
        }
        tiles[j * columns..][..W].copy_from_slice(&entries);
    }
}

/// The adjoint of [`spread`] with four entries and no margin, mapped.
#[inline(always)]
fn collect<T: Real>(tiles: &[T], columns: usize, map: impl Fn(T) -> T + Copy, row: &mut [T]) {
    let across = row.len().div_ceil(TILE);
    match across {
        2 => collect_tiles::<T, 2>(tiles, columns, map, row),
        4 => collect_tiles::<T, 4>(tiles, columns, map, row),
        8 => collect_tiles::<T, 8>(tiles, columns, map, row),
        9 => collect_tiles::<T, 9>(tiles, columns, map, row),
        MANY.. => {
            for first in (0..across).step_by(MANY) {
                let first = first.min(across - MANY);
                collect_tiles::<T, MANY>(&tiles[first..], columns, map, &mut row[TILE * first..]);
            }
        }
        _ => {
            for (t, pixels) in row.chunks_mut(TILE).enumerate() {
                for (j, to) in pixels.iter_mut().enumerate() {
                    *to = map(tiles[j * columns + t]);
                }
            }
        }
    }
}

/// [`collect`] of the first W tiles, as far as the row goes.
#[inline(always)]
fn collect_tiles<T: Real, const W: usize>(tiles: &[T], columns: usize, map: impl Fn(T) -> T, row: &mut [T]) {
    let mut pixels = [[T::zero(); TILE]; W];
    for j in 0..TILE {
        for (t, &entry) in tiles[j * columns..][..W].iter().enumerate() {
            pixels[t][j] = map(entry);
        }
    }
    let count = row.len().min(TILE * W);
    row[..count].copy_from_slice(&pixels.as_flattened()[..count]);
}
