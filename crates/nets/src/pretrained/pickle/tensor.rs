//! A tensor as a `.pth` file describes it: a window, by offset, shape and strides, into bytes that several may share.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::refused;
use crate::Result;

pub(super) const MOST_DIMS: usize = 8;

/// A tensor in the bytes of a file.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    file: Arc<Vec<u8>>,
    /// Where in the file its storage is.
    storage: Range<usize>,
    dtype: DType,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// What a pickle says of a tensor, before any of it is believed.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

impl StoredTensor {
    /// The tensor that a pickle claims to be in the bytes `storage` of `file`, if it is there.
    pub(super) fn new(
        file: &Arc<Vec<u8>>,
        storage: Range<usize>,
        dtype: DType,
        claims: &Claims,
    ) -> Result<Self> {
        let there = storage.len() / dtype.size_in_bytes();
        let Claims { offset, shape, strides } = claims;
        let wrong = || {
            refused(format!(
                "a tensor of {shape:?} with strides {strides:?} from {offset} in {there} elements"
            ))
        };
        let natural = |numbers: &[i64]| numbers.iter().map(|&n| usize::try_from(n).ok()).collect();
        let sizes: (Option<Vec<usize>>, Option<Vec<usize>>) = (natural(shape), natural(strides));
        let (Some(shape), Some(strides)) = sizes else { return Err(wrong()) };
        let offset = usize::try_from(*offset).map_err(|_| wrong())?;
        if shape.len() != strides.len() || shape.len() > MOST_DIMS {
            return Err(wrong());
        }
        let count: usize =
            shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n)).ok_or_else(wrong)?;
        // A size of zero does not excuse the others: strides are products of them.
        shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n.max(1))).ok_or_else(wrong)?;
        if count > 0 {
            let steps = |(n, stride): (&usize, &usize)| (n - 1).checked_mul(*stride);
            let last = shape.iter().zip(&strides).try_fold(offset, |at, axis| at.checked_add(steps(axis)?));
            // More elements than the storage has would be a small file that unfolds to a large one.
            if last.is_none_or(|last| last >= there) || count > there {
                return Err(wrong());
            }
        }
        Ok(Self { file: file.clone(), storage, dtype, offset, shape, strides })
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its type; truth values are bytes.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// A copy of it on the host.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let size = self.dtype.size_in_bytes();
        let Some(storage) = self.file.get(self.storage.clone()) else {
            return Err(refused("a storage that is not in the file"));
        };
        let count: usize = self.shape.iter().product();
        let contiguous = self.contiguous();
        let from = if count == 0 { 0 } else { self.offset * size };
        let dense = storage.get(from..from + count * size).filter(|_| contiguous || count == 0);
        let tensor = match dense {
            Some(bytes) => Tensor::from_raw_buffer(bytes, self.dtype, &self.shape, &Device::Cpu),
            None => {
                Tensor::from_raw_buffer(&self.gather(storage, count), self.dtype, &self.shape, &Device::Cpu)
            }
        };
        Ok(tensor?)
    }

    fn contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&n, &stride)| {
            let fits = n == 1 || stride == expected;
            expected *= n;
            fits
        })
    }

    /// The elements in row-major order.
    fn gather(&self, storage: &[u8], count: usize) -> Vec<u8> {
        let size = self.dtype.size_in_bytes();
        let mut bytes = Vec::with_capacity(count * size);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..count {
            let at =
                self.offset + index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum::<usize>();
            bytes.extend(storage.iter().skip(at * size).take(size));
            for (i, &n) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < n {
                    break;
                }
                *i = 0;
            }
        }
        bytes
    }
}
