// Group normalisation with SiLU behind it where asked: the formulas are in src/ops/group_norm.rs.
//
// One block to a group of a sample, whose values lie one behind the other. Statistics are in f32 for bf16. The moments are
// found twice, by the forward and the backward pass: reading a group again costs less than keeping what belongs to it.
#include "common.cuh"

// Mean, and 1 / √(variance + ε), of `length` values; all threads of the block take part.
template <typename T>
__device__ void moments(const T* x, unsigned length, wide<T> epsilon, wide<T>& mean, wide<T>& inverse) {
  using A = wide<T>;
  A sum = A(0);
  for (unsigned i = threadIdx.x; i < length; i += blockDim.x) sum += widen(x[i]);
  mean = block_sum(sum) / A(length);
  A squares = A(0);
  for (unsigned i = threadIdx.x; i < length; i += blockDim.x) {
    const A centred = widen(x[i]) - mean;
    squares += centred * centred;
  }
  inverse = inverse_root(block_sum(squares) / A(length) + epsilon);
}

template <typename T>
__device__ void forward(const T* x, const wide<T>* w, const wide<T>* b, T* y, unsigned groups, unsigned channels, unsigned positions,
                        double epsilon, unsigned silu) {
  using A = wide<T>;
  const unsigned length = channels * positions, first = blockIdx.x % groups * channels;
  x += (unsigned long long)blockIdx.x * length;
  y += (unsigned long long)blockIdx.x * length;
  A mean, inverse;
  moments(x, length, A(epsilon), mean, inverse);
  for (unsigned i = threadIdx.x; i < length; i += blockDim.x) {
    const unsigned channel = first + i / positions;
    const A scale = w[channel] * inverse;
    const A z = (widen(x[i]) - mean) * scale + b[channel];
    y[i] = narrow<T>(silu ? silu_of(z) : z);
  }
}

// x̄, and the parts w̄ and b̄ of each sample, `[samples, groups · channels]`. A warp to a channel.
template <typename T>
__device__ void backward(const T* x, const wide<T>* w, const wide<T>* b, const T* grad, T* for_x, wide<T>* for_w, wide<T>* for_b,
                         unsigned groups, unsigned channels, unsigned positions, double epsilon, unsigned silu) {
  using A = wide<T>;
  const unsigned length = channels * positions, first = blockIdx.x % groups * channels;
  const unsigned lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  x += (unsigned long long)blockIdx.x * length;
  grad += (unsigned long long)blockIdx.x * length;
  for_x += (unsigned long long)blockIdx.x * length;
  for_w += (unsigned long long)blockIdx.x * channels;
  for_b += (unsigned long long)blockIdx.x * channels;
  w += first;
  b += first;
  A mean, inverse;
  moments(x, length, A(epsilon), mean, inverse);
  // z̄ of entry i of channel c.
  auto for_z = [&](unsigned c, unsigned i) {
    const A g = widen(grad[i]);
    return silu ? g * silu_slope((widen(x[i]) - mean) * inverse * w[c] + b[c]) : g;
  };
  // Σ n̄ and Σ n̄ n over the channels of this warp, the same in all its lanes.
  A sum = A(0), sum_with_n = A(0);
  for (unsigned c = warp; c < channels; c += warps) {
    A bias = A(0), weight = A(0);
    for (unsigned p = lane; p < positions; p += 32) {
      const unsigned i = c * positions + p;
      const A z = for_z(c, i);
      bias += z;
      weight += z * (widen(x[i]) - mean);
    }
    bias = warp_sum(bias);
    weight = warp_sum(weight) * inverse;
    if (lane == 0) {
      for_b[c] = bias;
      for_w[c] = weight;
    }
    sum += w[c] * bias;
    sum_with_n += w[c] * weight;
  }
  const A mean_n = block_sum(lane == 0 ? sum : A(0)) / A(length);
  const A mean_with_n = block_sum(lane == 0 ? sum_with_n : A(0)) / A(length);
  for (unsigned i = threadIdx.x; i < length; i += blockDim.x) {
    const unsigned c = i / positions;
    const A n = (widen(x[i]) - mean) * inverse;
    for_x[i] = narrow<T>((for_z(c, i) * w[c] - mean_n - n * mean_with_n) * inverse);
  }
}

#define KERNELS(T, NAME)                                                                                                          \
  extern "C" __global__ void group_norm_forward_##NAME(const T* x, const wide<T>* w, const wide<T>* b, T* y, unsigned groups,     \
                                                       unsigned channels, unsigned positions, double epsilon, unsigned silu) {    \
    forward<T>(x, w, b, y, groups, channels, positions, epsilon, silu);                                                           \
  }                                                                                                                               \
  extern "C" __global__ void group_norm_backward_##NAME(const T* x, const wide<T>* w, const wide<T>* b, const T* grad, T* for_x,  \
                                                        wide<T>* for_w, wide<T>* for_b, unsigned groups, unsigned channels,       \
                                                        unsigned positions, double epsilon, unsigned silu) {                      \
    backward<T>(x, w, b, grad, for_x, for_w, for_b, groups, channels, positions, epsilon, silu);                                  \
  }

KERNELS(float, f32)
KERNELS(double, f64)
KERNELS(bf16, bf16)
