// The words of CUDA that our kernels use, for a C++ compiler: a kernel's thread is a fibre, and barriers and shuffles switch
// between them. Blocks run one after the other. A barrier that not all threads of a block (or warp) reach is reported.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__ static
#define __forceinline__ inline
#define __shared__ static  // one block at a time

struct Three {
  unsigned x, y, z;
};
extern Three threadIdx, blockIdx, blockDim, gridDim;

void block_barrier();
void warp_barrier();
extern unsigned char warp_slots[32][32][8];

static inline void __syncthreads() { block_barrier(); }

template <typename A> static A __shfl_xor_sync(unsigned, A value, int other) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned warp = thread / 32, lane = thread % 32;
  memcpy(warp_slots[warp][lane], &value, sizeof(A));
  warp_barrier();
  A found;
  memcpy(&found, warp_slots[warp][lane ^ other], sizeof(A));
  warp_barrier();
  return found;
}

// The upper half of an f32, rounded to nearest, ties to even.
struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float value) {
    uint32_t word;
    memcpy(&word, &value, 4);
    bits = value != value ? 0x7fff : (uint16_t)((word + 0x7fff + ((word >> 16) & 1)) >> 16);
  }
  explicit operator float() const {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
  }
};
