// What every kernel needs: the types, loads and stores that widen and round, and sums in a fixed order.
//
// Values are f32, f64 or bf16. Arithmetic on bf16 is in f32: a value is widened when it is read and rounded when it is written.
// Every sum has an order that follows from the shapes: results do not differ from run to run.
#pragma once
#include <cuda_bf16.h>

using bf16 = __nv_bfloat16;

// The type that arithmetic on T is done in.
template <typename T> struct Wide { using type = T; };
template <> struct Wide<bf16> { using type = float; };
template <typename T> using wide = typename Wide<T>::type;

template <typename T> __device__ __forceinline__ wide<T> widen(T value) { return static_cast<wide<T>>(value); }
template <typename T> __device__ __forceinline__ T narrow(wide<T> value) { return static_cast<T>(value); }

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float inverse_root(float x) { return 1.0f / sqrtf(x); }
__device__ __forceinline__ double inverse_root(double x) { return 1.0 / sqrt(x); }
__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }

template <typename A> __device__ __forceinline__ A sigmoid(A x) { return A(1) / (A(1) + exponential(-x)); }

// z σ(z), and its derivative.
template <typename A> __device__ __forceinline__ A silu_of(A z) { return z * sigmoid(z); }
template <typename A> __device__ __forceinline__ A silu_slope(A z) {
  const A s = sigmoid(z);
  return s * (A(1) + z * (A(1) - s));
}

// The sum over a warp, in all its lanes.
template <typename A> __device__ __forceinline__ A warp_sum(A value) {
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

template <typename A> __device__ __forceinline__ A warp_max(A value) {
  for (int offset = 16; offset > 0; offset >>= 1) value = larger(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

// The sum over a block of whole warps, in all its threads: over the lanes of each warp, then over the warps.
template <typename A> __device__ __forceinline__ A block_sum(A value) {
  __shared__ A parts[32];
  value = warp_sum(value);
  __syncthreads();  // what an earlier sum left has been read
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = value;
  __syncthreads();
  A total = A(0);
  for (unsigned warp = 0; warp < blockDim.x >> 5; warp++) total += parts[warp];
  return total;
}

// The entries i = first, first + stride, … of one thread, over a grid of any size.
#define FOR_EACH(i, n)                                                                              \
  for (unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x; i < (n); \
       i += (unsigned long long)gridDim.x * blockDim.x)
