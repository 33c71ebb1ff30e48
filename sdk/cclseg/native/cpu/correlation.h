// The local correlation on a CPU. cclseg/correlation.py defines the numbers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cclseg {

constexpr float kEps = 1e-6f;

enum class Type { kFloat32, kInt8 };

// One call. Both maps are (batch, channels, height, width) and contiguous; the result is float32,
// (batch, groups * (2 radius + 1)^2, height, width).
struct Problem {
  Type type = Type::kFloat32;
  int64_t batch = 0, channels = 0, height = 0, width = 0;
  int64_t radius = 0, dilation = 1, groups = 1;
  bool normalize = false;
  float a_scale = 1, b_scale = 1;  // of int8 maps
};

// Runs body(data, i) for all i < count, on as many threads as the host has.
struct Threads {
  void (*run)(void* host, void (*body)(void* data, size_t i), size_t count, void* data);
  void* host;
};

// What is wrong with a problem, in words; null when nothing is.
const char* misfit(const Problem& problem);

int64_t window_size(const Problem& problem);  // channels of the result

// One tile of the result; implemented once per instruction set.
struct Tile {
  const Problem* problem;
  const void* a;
  const void* b;
  float* out;
  int64_t image, group, y, x, rows, columns;
};
using TileFunction = bool (*)(const Tile&);  // false: out of memory

struct Kernel {
  const char* name;
  bool (*is_supported)();
  TileFunction float32, int8;
};

// The kernels of this architecture, best first; ends with one that always works.
const Kernel* kernels(size_t* count);
const Kernel& best_kernel();
const Kernel* find_kernel(const char* name);  // null where unknown or not supported here

// Computes the correlation of a checked problem. False: out of memory.
bool correlate(const Kernel&, const Problem&, const void* a, const void* b, float* out, Threads);

}  // namespace cclseg
