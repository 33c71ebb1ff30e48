// CUDA's words in plain C++, enough to run a kernel on a CPU: blocks one after another, the threads
// of a block as fibers that take turns at barriers, shared memory of exactly the size asked for.
//
// It proves numbers, bounds (under AddressSanitizer) and barriers: shared memory starts as
// not-a-number, and a run in which the threads take their turns backwards gives another result
// where a barrier is missing. It says nothing of speed.

#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)

struct EmulatedIndex {
  int x, y, z;
};
inline thread_local EmulatedIndex threadIdx, blockIdx, blockDim;

using std::fmaxf;
using std::fminf;

inline int min(int a, int b) { return a < b ? a : b; }

// Compile with -ffp-contract=off, or a product and a sum become one rounding.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }

inline int __dp4a(int a, int b, int sum) {
  for (int k = 0; k < 4; ++k)
    sum += static_cast<int8_t>(a >> (8 * k)) * static_cast<int8_t>(b >> (8 * k));
  return sum;
}

namespace emulation {

inline float half_to_float(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 31u, mantissa = half & 1023u;
  if (exponent == 0) return std::ldexp(static_cast<float>(mantissa), -24) * (sign ? -1.0f : 1.0f);
  const uint32_t bits = sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | mantissa << 13;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Rounds to nearest, ties to even.
inline uint16_t float_to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const float size = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7e00u;
  if (size >= 65520.0f) return sign | 0x7c00u;
  if (size < 6.103515625e-5f)  // subnormal: whole multiples of 2^-24
    return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(size, 24)));
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return sign | static_cast<uint16_t>((rounded >> 13) - (112u << 10));
}

constexpr size_t kStackBytes = 64 * 1024;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  EmulatedIndex index;
  bool done;
};

struct Machine {
  ucontext_t home;
  Fiber* running = nullptr;
  void* shared = nullptr;
  std::function<void()> kernel;
};
inline thread_local Machine machine;

inline void* shared_memory() { return machine.shared; }

inline void run_fiber() {
  machine.kernel();
  machine.running->done = true;
}

// Runs one block. Returns false when some threads ended while others waited at a barrier.
inline bool run_block(std::vector<Fiber>& fibers, bool backwards) {
  for (Fiber& fiber : fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = &machine.home;
    fiber.done = false;
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (size_t done = 0; done == 0;) {
    for (size_t i = 0; i < fibers.size(); ++i) {
      Fiber& fiber = fibers[backwards ? fibers.size() - 1 - i : i];
      machine.running = &fiber;
      threadIdx = fiber.index;
      swapcontext(&machine.home, &fiber.context);
      done += fiber.done;
    }
    if (done != 0 && done != fibers.size()) return false;
  }
  return true;
}

inline bool run(EmulatedIndex grid, EmulatedIndex threads, size_t shared_bytes, bool backwards,
                std::function<void()> kernel) {
  std::vector<Fiber> fibers(static_cast<size_t>(threads.x) * threads.y * threads.z);
  for (size_t i = 0; i < fibers.size(); ++i) {
    const int number = static_cast<int>(i);
    fibers[i].index = {number % threads.x, number / threads.x % threads.y,
                       number / threads.x / threads.y};
  }
  machine.kernel = std::move(kernel);
  blockDim = threads;
  const long long plane = static_cast<long long>(grid.x) * grid.y, blocks = plane * grid.z;
  for (long long block = 0; block < blocks; ++block) {
    const std::unique_ptr<void, void (*)(void*)> shared(std::aligned_alloc(16, shared_bytes),
                                                        std::free);
    if (shared_bytes != 0) std::memset(shared.get(), 0xff, shared_bytes);
    machine.shared = shared.get();
    blockIdx = {static_cast<int>(block % grid.x), static_cast<int>(block % plane / grid.x),
                static_cast<int>(block / plane)};
    if (!run_block(fibers, backwards)) return false;
  }
  return true;
}

}  // namespace emulation

inline void __syncthreads() {
  emulation::Fiber* self = emulation::machine.running;
  swapcontext(&self->context, &emulation::machine.home);
}
