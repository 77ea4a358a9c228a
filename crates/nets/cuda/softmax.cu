// Softmax over rows, and its backward `x̄ = y (ȳ − Σ y ȳ)`. A warp to a row.
#include "common.cuh"

template <typename T>
__device__ void forward(const T* x, T* y, unsigned width, unsigned long long rows) {
  using A = wide<T>;
  const unsigned lane = threadIdx.x & 31;
  const unsigned long long row = (blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x) >> 5;
  if (row >= rows) return;  // whole warps: a block has a multiple of 32 threads
  x += row * width;
  y += row * width;
  A largest = -INFINITY;
  for (unsigned i = lane; i < width; i += 32) largest = larger(largest, widen(x[i]));
  largest = warp_max(largest);
  A sum = A(0);
  for (unsigned i = lane; i < width; i += 32) sum += exponential(widen(x[i]) - largest);
  const A factor = A(1) / warp_sum(sum);
  for (unsigned i = lane; i < width; i += 32) y[i] = narrow<T>(exponential(widen(x[i]) - largest) * factor);
}

template <typename T>
__device__ void backward(const T* y, const T* grad, T* for_x, unsigned width, unsigned long long rows) {
  using A = wide<T>;
  const unsigned lane = threadIdx.x & 31;
  const unsigned long long row = (blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x) >> 5;
  if (row >= rows) return;
  y += row * width;
  grad += row * width;
  for_x += row * width;
  A sum = A(0);
  for (unsigned i = lane; i < width; i += 32) sum += widen(y[i]) * widen(grad[i]);
  sum = warp_sum(sum);
  for (unsigned i = lane; i < width; i += 32) for_x[i] = narrow<T>(widen(y[i]) * (widen(grad[i]) - sum));
}

#define KERNELS(T, NAME)                                                                                               \
  extern "C" __global__ void softmax_forward_##NAME(const T* x, T* y, unsigned width, unsigned long long rows) {       \
    forward<T>(x, y, width, rows);                                                                                     \
  }                                                                                                                    \
  extern "C" __global__ void softmax_backward_##NAME(const T* y, const T* grad, T* for_x, unsigned width,              \
                                                     unsigned long long rows) {                                        \
    backward<T>(y, grad, for_x, width, rows);                                                                          \
  }

KERNELS(float, f32)
KERNELS(double, f64)
KERNELS(bf16, bf16)
