// SiLU, forward and backward; a bias added in place; doubling by nearest neighbour, and sums of 2×2 squares.
#include "common.cuh"

template <typename T> __device__ void silu_forward(const T* x, T* y, unsigned long long n) {
  FOR_EACH(i, n) y[i] = narrow<T>(silu_of(widen(x[i])));
}

template <typename T> __device__ void silu_backward(const T* x, const T* grad, T* for_x, unsigned long long n) {
  FOR_EACH(i, n) for_x[i] = narrow<T>(widen(grad[i]) * silu_slope(widen(x[i])));
}

// y[s, o, p] += bias[o], or += bias[s, o]: `biases` is the number of values in bias.
template <typename T>
__device__ void add_bias(T* y, const T* bias, unsigned biases, unsigned positions, unsigned long long n) {
  FOR_EACH(i, n) y[i] = narrow<T>(widen(y[i]) + widen(bias[i / positions % biases]));
}

// Rows of `width` values to pairs of rows of pairs; n counts the output.
template <typename T> __device__ void doubled(const T* x, T* y, unsigned width, unsigned long long n) {
  FOR_EACH(i, n) {
    const unsigned long long row = i / (2 * width), column = i % (2 * width);
    y[i] = x[row / 2 * width + column / 2];
  }
}

// The adjoint; `width` is that of the output, and n counts the output.
template <typename T> __device__ void halved(const T* x, T* y, unsigned width, unsigned long long n) {
  FOR_EACH(i, n) {
    const unsigned long long row = i / width, column = i % width;
    const T* square = x + row * 4 * width + 2 * column;
    y[i] = narrow<T>((widen(square[0]) + widen(square[1])) + (widen(square[2 * width]) + widen(square[2 * width + 1])));
  }
}

#define KERNELS(T, NAME)                                                                                                     \
  extern "C" __global__ void silu_forward_##NAME(const T* x, T* y, unsigned long long n) { silu_forward<T>(x, y, n); }       \
  extern "C" __global__ void silu_backward_##NAME(const T* x, const T* grad, T* for_x, unsigned long long n) {               \
    silu_backward<T>(x, grad, for_x, n);                                                                                     \
  }                                                                                                                          \
  extern "C" __global__ void add_bias_##NAME(T* y, const T* bias, unsigned biases, unsigned positions, unsigned long long n) { \
    add_bias<T>(y, bias, biases, positions, n);                                                                              \
  }                                                                                                                          \
  extern "C" __global__ void doubled_##NAME(const T* x, T* y, unsigned width, unsigned long long n) { doubled<T>(x, y, width, n); } \
  extern "C" __global__ void halved_##NAME(const T* x, T* y, unsigned width, unsigned long long n) { halved<T>(x, y, width, n); }

KERNELS(float, f32)
KERNELS(double, f64)
KERNELS(bf16, bf16)
