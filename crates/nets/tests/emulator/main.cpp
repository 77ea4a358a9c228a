// Runs one launch of one kernel on the CPU: the launch on the standard input, the buffers after it on the standard output.
//
// Input, little-endian: length and bytes of the name, three words of grid, three of block, the number of arguments; for each a
// word (0 a scalar, 1 a buffer), a length as eight bytes, and the bytes. Exit codes: 2 unknown kernel, 3 a barrier that not all
// reach, 4 a write outside of a buffer.
#include "cuda_bf16.h"

#include "../../cuda/common.cuh"
namespace group_norm {
#include "../../cuda/group_norm.cu"
}
#undef KERNELS
namespace pointwise {
#include "../../cuda/pointwise.cu"
}
#undef KERNELS
namespace softmax {
#include "../../cuda/softmax.cu"
}
#undef KERNELS
namespace patches {
#include "../../cuda/patches.cu"
}

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

Three threadIdx, blockIdx, blockDim, gridDim;
unsigned char warp_slots[32][32][8];

enum State { READY, AT_BLOCK, AT_WARP, DONE };
struct Fibre {
  ucontext_t context;
  State state;
  Three index;
  std::vector<char> stack;
};
static std::vector<Fibre> fibres;
static ucontext_t scheduler;
static size_t running;
static std::function<void()> body;

static void wait_in(State state) {
  fibres[running].state = state;
  swapcontext(&fibres[running].context, &scheduler);
}
void block_barrier() { wait_in(AT_BLOCK); }
void warp_barrier() { wait_in(AT_WARP); }

static void start() {
  body();
  wait_in(DONE);
}

// Lets all of a range go on if all of it that is not done waits in `state`.
static bool release(size_t from, size_t to, State state) {
  bool any = false;
  for (size_t i = from; i < to; i++) {
    if (fibres[i].state == DONE) continue;
    if (fibres[i].state != state) return false;
    any = true;
  }
  for (size_t i = from; i < to; i++)
    if (fibres[i].state == state) fibres[i].state = READY;
  return any;
}

static void run_block() {
  const size_t count = (size_t)blockDim.x * blockDim.y * blockDim.z;
  fibres.resize(count);
  for (size_t i = 0; i < count; i++) {
    Fibre &f = fibres[i];
    f.stack.resize(64 << 10);
    f.state = READY;
    f.index = {unsigned(i % blockDim.x), unsigned(i / blockDim.x % blockDim.y), unsigned(i / blockDim.x / blockDim.y)};
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, start, 0);
  }
  for (;;) {
    bool ran = false, left = false;
    for (running = 0; running < count; running++) {
      Fibre &f = fibres[running];
      if (f.state == READY) {
        threadIdx = f.index;
        swapcontext(&scheduler, &f.context);
        ran = true;
      }
      left |= f.state != DONE;
    }
    if (!left) return;
    bool released = release(0, count, AT_BLOCK);
    for (size_t w = 0; w < count; w += 32) released |= release(w, w + 32 < count ? w + 32 : count, AT_WARP);
    if (!ran && !released) {
      fprintf(stderr, "a barrier that not all threads reach\n");
      exit(3);
    }
  }
}

using Launch = std::function<void(std::vector<void *> &)>;
template <typename... A, size_t... I>
static Launch unpack(void (*kernel)(A...), std::index_sequence<I...>) {
  return [kernel](std::vector<void *> &arguments) {
    if (arguments.size() != sizeof...(A)) {
      fprintf(stderr, "%zu arguments in the place of %zu\n", arguments.size(), sizeof...(A));
      exit(2);
    }
    body = [kernel, &arguments] { kernel(*(A *)arguments[I]...); };
    for (unsigned z = 0; z < gridDim.z; z++)
      for (unsigned y = 0; y < gridDim.y; y++)
        for (unsigned x = 0; x < gridDim.x; x++) {
          blockIdx = {x, y, z};
          run_block();
        }
  };
}
template <typename... A> static Launch launch(void (*kernel)(A...)) { return unpack(kernel, std::index_sequence_for<A...>{}); }

#define ENTRY(space, name) \
  {#name "_f32", launch(space::name##_f32)}, {#name "_f64", launch(space::name##_f64)}, {#name "_bf16", launch(space::name##_bf16)}

static const std::map<std::string, Launch> kernels = {
    ENTRY(group_norm, group_norm_forward), ENTRY(group_norm, group_norm_backward), ENTRY(pointwise, silu_forward),
    ENTRY(pointwise, silu_backward),       ENTRY(pointwise, add_bias),             ENTRY(pointwise, doubled),
    ENTRY(pointwise, halved),              ENTRY(softmax, softmax_forward),        ENTRY(softmax, softmax_backward),
    ENTRY(patches, unfold),                ENTRY(patches, fold),                   ENTRY(patches, transpose),
    ENTRY(patches, exchange),
};

template <typename T> static T read() {
  T value;
  if (fread(&value, sizeof value, 1, stdin) != 1) exit(2);
  return value;
}

int main() {
  std::string name(read<uint32_t>(), 0);
  if (fread(&name[0], 1, name.size(), stdin) != name.size()) return 2;
  gridDim = read<Three>();
  blockDim = read<Three>();
  const size_t count = read<uint32_t>(), guard = 64;
  std::vector<std::vector<unsigned char>> values(count);
  std::vector<void *> pointers(count), arguments(count);
  std::vector<bool> is_buffer(count);
  for (size_t i = 0; i < count; i++) {
    is_buffer[i] = read<uint32_t>();
    const uint64_t length = read<uint64_t>();
    values[i].assign(length + 2 * guard, 0xa5);
    pointers[i] = values[i].data() + guard;
    if (length && fread(pointers[i], 1, length, stdin) != length) return 2;
    arguments[i] = is_buffer[i] ? (void *)&pointers[i] : pointers[i];
  }
  const auto found = kernels.find(name);
  if (found == kernels.end()) {
    fprintf(stderr, "unknown kernel %s\n", name.c_str());
    return 2;
  }
  found->second(arguments);
  for (size_t i = 0; i < count; i++) {
    for (size_t k = 0; k < guard; k++)
      if (values[i][k] != 0xa5 || values[i][values[i].size() - 1 - k] != 0xa5) {
        fprintf(stderr, "argument %zu of %s was written outside of its buffer\n", i, name.c_str());
        return 4;
      }
    if (is_buffer[i]) fwrite(pointers[i], 1, values[i].size() - 2 * guard, stdout);
  }
  return 0;
}
