// Patches of images as columns of a matrix, and back; and the transposes around matrix products and channels-last convolutions.
//
// Entry (s, c, i, j, p) of the patch matrix lies at s · sample + ((c · kh + i) · kw + j) · tap + p, p a position of the output.
// Folding gathers, for each value of the image, what was read from it, tap by tap: no atomic sums, one fixed order.
#include "common.cuh"

// Passed by value; the same words as `Sizes` in src/ops/cuda/products.rs.
struct Sizes {
  unsigned channels, height, width, kernel_height, kernel_width, stride, top, left, out_height, out_width;
};

template <typename T>
__device__ void unfold(const T* images, T* columns, Sizes g, unsigned long long sample, unsigned long long tap, unsigned long long n) {
  const unsigned positions = g.out_height * g.out_width, area = g.kernel_height * g.kernel_width, taps = g.channels * area;
  FOR_EACH(index, n) {
    const unsigned p = index % positions, k = index / positions % taps;
    const unsigned long long s = index / positions / taps;
    const unsigned c = k / area, i = k % area / g.kernel_width, j = k % g.kernel_width;
    const int row = (int)(p / g.out_width * g.stride + i) - (int)g.top;
    const int column = (int)(p % g.out_width * g.stride + j) - (int)g.left;
    const bool inside = row >= 0 && row < (int)g.height && column >= 0 && column < (int)g.width;
    columns[s * sample + k * tap + p] =
        inside ? images[((s * g.channels + c) * g.height + row) * g.width + column] : narrow<T>(wide<T>(0));
  }
}

template <typename T>
__device__ void fold(const T* columns, T* images, Sizes g, unsigned long long sample, unsigned long long tap, unsigned long long n) {
  const unsigned area = g.kernel_height * g.kernel_width;
  FOR_EACH(index, n) {
    const unsigned column = index % g.width, row = index / g.width % g.height, c = index / g.width / g.height % g.channels;
    const unsigned long long s = index / g.width / g.height / g.channels;
    wide<T> sum = wide<T>(0);
    for (unsigned i = 0; i < g.kernel_height; i++) {
      // The output row that reads this one through tap i, if there is one.
      const int down = (int)(row + g.top) - (int)i;
      if (down < 0 || down % (int)g.stride != 0 || down / g.stride >= g.out_height) continue;
      for (unsigned j = 0; j < g.kernel_width; j++) {
        const int across = (int)(column + g.left) - (int)j;
        if (across < 0 || across % (int)g.stride != 0 || across / g.stride >= g.out_width) continue;
        const unsigned k = c * area + i * g.kernel_width + j;
        sum += widen(columns[s * sample + k * tap + down / g.stride * g.out_width + across / g.stride]);
      }
    }
    images[index] = narrow<T>(sum);
  }
}

// [count, rows, columns] to [count, columns, rows]: blocks of 32×8 threads, each on a 32×32 tile; the grid is
// (tiles across, tiles down, at most 65535 matrices at a time).
template <typename T>
__device__ void transpose(const T* from, T* to, unsigned count, unsigned rows, unsigned columns) {
  __shared__ T tile[32][33];  // the odd width keeps the threads of a warp on different banks
  const unsigned left = blockIdx.x * 32, top = blockIdx.y * 32;
  for (unsigned matrix = blockIdx.z; matrix < count; matrix += gridDim.z) {
    const unsigned long long start = (unsigned long long)matrix * rows * columns;
    for (unsigned y = threadIdx.y; y < 32; y += 8) {
      const unsigned row = top + y, column = left + threadIdx.x;
      if (row < rows && column < columns) tile[y][threadIdx.x] = from[start + (unsigned long long)row * columns + column];
    }
    __syncthreads();
    for (unsigned y = threadIdx.y; y < 32; y += 8) {
      const unsigned row = left + y, column = top + threadIdx.x;
      if (row < columns && column < rows) to[start + (unsigned long long)row * rows + column] = tile[threadIdx.x][y];
    }
    __syncthreads();
  }
}

// [first, second, n] to [second, first, n], n values that stay together.
template <typename T>
__device__ void exchange(const T* from, T* to, unsigned first, unsigned second, unsigned inner, unsigned long long n) {
  FOR_EACH(index, n) {
    const unsigned p = index % inner, b = index / inner % first;
    const unsigned long long a = index / inner / first;
    to[index] = from[((unsigned long long)b * second + a) * inner + p];
  }
}

#define KERNELS(T, NAME)                                                                                                             \
  extern "C" __global__ void unfold_##NAME(const T* images, T* columns, Sizes g, unsigned long long sample, unsigned long long tap, \
                                           unsigned long long n) {                                                                  \
    unfold<T>(images, columns, g, sample, tap, n);                                                                                  \
  }                                                                                                                                 \
  extern "C" __global__ void fold_##NAME(const T* columns, T* images, Sizes g, unsigned long long sample, unsigned long long tap,   \
                                         unsigned long long n) {                                                                    \
    fold<T>(columns, images, g, sample, tap, n);                                                                                    \
  }                                                                                                                                 \
  extern "C" __global__ void transpose_##NAME(const T* from, T* to, unsigned count, unsigned rows, unsigned columns) {              \
    transpose<T>(from, to, count, rows, columns);                                                                                   \
  }                                                                                                                                 \
  extern "C" __global__ void exchange_##NAME(const T* from, T* to, unsigned first, unsigned second, unsigned inner,                 \
                                             unsigned long long n) {                                                                \
    exchange<T>(from, to, first, second, inner, n);                                                                                 \
  }

KERNELS(float, f32)
KERNELS(double, f64)
KERNELS(bf16, bf16)
