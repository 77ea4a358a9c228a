//! The tiles of images, taken by *bands*: the tiles side by side in four rows of pixels.
//!
//! Between the pixels of a block of bands and the matrices of Winograd's algorithm: V and D from images, y from M
//! ([`super::winograd`] has the formulas). Entry τ of a row of a matrix is tile `τ mod across` of band `τ / across`;
//! rows are filled up to whole lanes.

use rayon::prelude::*;

use super::super::kernel::{LANES, Real, vectorised, with_scratch};
use super::super::patches::Geometry;
use super::tiles::{Input, Lane, Output, OutputAdjoint, Side, both_sides};

/// The number of points.
pub(super) const POINTS: usize = 36;
/// The side of an output tile.
pub(super) const TILE: usize = 4;
/// The side of an input tile.
const INPUT: usize = 6;
/// Between the matrices of two channels, so that they do not compete for the same lines of a cache.
pub(super) const PAD: usize = 16;

/// Pixels that a tile of this side begins before its place: input tiles overlap.
#[inline(always)]
const fn margin(side: usize) -> usize {
    (side - TILE) / 2
}

/// The images of a convolution, cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    height: usize,
    width: usize,
    /// Tiles side by side.
    across: usize,
    /// Bands of one image.
    pub(super) bands: usize,
}

impl Tiling {
    pub(super) fn new(geometry: &Geometry) -> Self {
        let Geometry { height, width, .. } = *geometry;
        Self { height, width, across: width.div_ceil(TILE), bands: height.div_ceil(TILE) }
    }

    pub(super) fn plane(self) -> usize {
        self.height * self.width
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
        self.transform::<T, Input, INPUT>(x, channels, stride, v);
    }

    /// D: for each filter 36 rows of tiles.
    pub(super) fn transform_gradients<T: Real>(
        &self,
        grad: &[T],
        filters: usize,
        stride: usize,
        d: &mut [T],
    ) {
        self.transform::<T, OutputAdjoint, TILE>(grad, filters, stride, d);
    }

    /// For each channel of `images` 36 rows, from tiles of J×J pixels.
    fn transform<T: Real, S: Side<T, J, 6>, const J: usize>(
        &self,
        images: &[T],
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
                            let plane =
                                &images[(sample * channels + channel) * tiling.plane()..][..tiling.plane()];
                            for i in 0..J {
                                let at = i * J * columns + band * tiling.across;
                                let row = (row + i).checked_sub(margin(J));
                                tiling.spread::<T, J>(plane, row, &mut tiles[at..], columns);
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

    /// y, plane by plane, with `bias(plane)` added.
    pub(super) fn transform_outputs<T: Real>(
        &self,
        m: &[T],
        filters: usize,
        y: &mut [T],
        bias: &(impl Fn(usize) -> T + Sync),
    ) {
        let (tiling, columns) = (self.tiling, self.tiling.columns(self.bands));
        let samples = y.len() / (filters * tiling.plane());
        // Every sample's plane of one filter in one task, so that the lanes are full.
        let mut planes: Vec<Vec<&mut [T]>> = (0..filters).map(|_| Vec::with_capacity(samples)).collect();
        for (index, plane) in y.chunks_exact_mut(tiling.plane()).enumerate() {
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
                            let shift = bias(sample * filters + k);
                            for i in 0..TILE.min(tiling.height - row) {
                                let at = i * TILE * columns + band * tiling.across;
                                let to = &mut planes[sample][(row + i) * tiling.width..][..tiling.width];
                                tiling.collect(&tiles[at..], columns, shift, to);
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

impl Tiling {
    /// One row of pixels as the J entries that it gives to each tile of a band: entry j of tile t at
    /// `tiles[j · columns + t]`. With six entries the tiles overlap and begin one pixel to the left.
    #[inline(always)]
    fn spread<T: Real, const J: usize>(
        self,
        plane: &[T],
        row: Option<usize>,
        tiles: &mut [T],
        columns: usize,
    ) {
        let row = row.and_then(|row| plane.get(row * self.width..(row + 1) * self.width));
        match (row, self.width) {
            (Some(row), 32) => spread_whole::<T, J, 8>(row, tiles, columns),
            (Some(row), 16) => spread_whole::<T, J, 4>(row, tiles, columns),
            (Some(row), 8) => spread_whole::<T, J, 2>(row, tiles, columns),
            (row, _) => {
                let row = row.unwrap_or_default();
                let margin = margin(J);
                for j in 0..J {
                    for (t, to) in tiles[j * columns..][..self.across].iter_mut().enumerate() {
                        let pixel = (TILE * t + j).checked_sub(margin).and_then(|p| row.get(p));
                        *to = pixel.copied().unwrap_or(T::zero());
                    }
                }
            }
        }
    }

    /// The adjoint of [`Tiling::spread`] with four entries, plus `shift`.
    #[inline(always)]
    fn collect<T: Real>(self, tiles: &[T], columns: usize, shift: T, row: &mut [T]) {
        for (t, pixels) in row.chunks_mut(TILE).enumerate() {
            for (j, to) in pixels.iter_mut().enumerate() {
                *to = tiles[j * columns + t] + shift;
            }
        }
    }
}

/// [`Tiling::spread`] of a row of exactly W tiles.
#[inline(always)]
fn spread_whole<T: Real, const J: usize, const W: usize>(row: &[T], tiles: &mut [T], columns: usize) {
    // One zero at the left where tiles overlap, and at least one at the right.
    let margin = margin(J);
    let mut padded = [[T::zero(); TILE]; 10];
    padded.as_flattened_mut()[margin..margin + TILE * W].copy_from_slice(&row[..TILE * W]);
    for j in 0..J {
        let mut entries = [T::zero(); W];
        for (t, entry) in entries.iter_mut().enumerate() {
            *entry = padded[t + j / TILE][j % TILE];
        }
        tiles[j * columns..][..W].copy_from_slice(&entries);
    }
}
