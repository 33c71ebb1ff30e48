// The local cross-correlation on a GPU: fp32, fp16 with fp32 sums, int8 with dp4a.
//
// Layout   Maps a, b (N, C, H, W) fp32 or fp16; int8 the same, or in packs of four channels
//          (N, ceil(C / 4), H, W, 4). Result (N, groups * (2R + 1)^2, H, W). All dense.
// Numbers  Those of cclseg.correlation.local_correlation. Sums are fp32, or exact in int32; one
//          rounding to the type of the result. Outside the map b is zero.
// Mapping  threadIdx.x = column of 8 neighbouring pixels, .y = row, .z = vertical lag. A thread
//          holds the sums of its pixels for up to 9 horizontal lags in registers, so that a window
//          of b, once read, serves all of them. A block stages some channels of a tile of 64
//          columns, and of its surroundings, in shared memory.
// Shared   Rows are kept in chunks of four pixels, first the even chunks, then the odd ones. A
//          request of 16 bytes a thread is served for eight threads at a time, without a conflict
//          where their chunks lie in the eight different groups of four banks. The eight threads
//          of a row own two chunks each: all even ones, then all odd ones, are eight in a row.
//          Writers take neighbouring chunks and go on in the next row; is_conflict_free proves it.
// Dilation With dilation D each of the D * D sub-lattices of the map is a problem of its own
//          without dilation; blocks share them out. Only global reads and writes are strided.
//
// The file needs no header, so that NVRTC compiles it as it stands; compiled as plain C++ it takes
// CUDA's words from emulation.h and runs on a CPU.

#if defined(__CUDACC__)
#define CCLSEG_SHARED_CHUNKS(name) extern __shared__ float4 name[]
#else
#include "emulation.h"
#define CCLSEG_SHARED_CHUNKS(name) void* name = emulation::shared_memory()
#endif

// Passed by value; correlation_cuda.py and launch.h fill it.
struct CorrelationParams {
  int batch, channels, height, width;
  int radius, dilation, groups, normalize;
  int stage_steps;  // channels (packs of four for int8) staged together
  int aligned;      // rows start at multiples of four pixels, maps at their vector's alignment
  int packed;       // int8 maps come in packs of four channels
  int out_type;     // of the int8 kernels: 0 fp32, 1 fp16, 2 int8
  float scale;      // value of one product of integers; 1 for floating maps
  float out_scale;  // value of one step of an int8 result
};

namespace {

constexpr int kPixels = 8;         // of one thread, side by side
constexpr int kTileColumns = 64;   // 8 threads
constexpr int kOddHalf = 12;       // chunks from a row's start to its odd ones; 4 modulo 8
constexpr int kRowA = 20, kRowB = 21;  // chunks from row to row in shared memory
constexpr float kEps = 1e-6f;

template <class T>
struct alignas(4 * sizeof(T)) Quad {
  T v[4];
};

struct Half {
  unsigned short bits;
};

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(Half value) {
#if defined(__CUDACC__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
#else
  return emulation::half_to_float(value.bits);
#endif
}

template <class T>
__device__ T from_float(float value, float out_scale);
template <>
__device__ inline float from_float<float>(float value, float) {
  return value;
}
template <>
__device__ inline Half from_float<Half>(float value, float) {
  Half narrow;
#if defined(__CUDACC__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(value));
#else
  narrow.bits = emulation::float_to_half(value);
#endif
  return narrow;
}
template <>
__device__ inline signed char from_float<signed char>(float value, float out_scale) {
  return static_cast<signed char>(fminf(fmaxf(rintf(value / out_scale), -128.0f), 127.0f));
}

__device__ inline float multiply_add(float a, float b, float sum) { return fmaf(a, b, sum); }
__device__ inline int multiply_add(int a, int b, int sum) { return __dp4a(a, b, sum); }

// Which part of the problem a block works on.
struct Place {
  int image, group, phase_y, phase_x;
};

// A map of floating values: one step is one channel.
template <class Stored>
struct FloatingMap {
  using Element = float;
  using Sum = float;

  __device__ static int steps(const CorrelationParams& p) { return p.channels / p.groups; }

  __device__ static const Stored* row(const CorrelationParams& p, const void* map, Place at,
                                      int step, int y) {
    const long long channel =
        static_cast<long long>(at.image) * p.channels + at.group * steps(p) + step;
    return static_cast<const Stored*>(map) + (channel * p.height + y) * p.width;
  }
  __device__ static float load(const CorrelationParams& p, const void* map, Place at, int step,
                               int y, int x) {
    return to_float(row(p, map, at, step, y)[x]);
  }
  __device__ static Quad<float> load_quad(const CorrelationParams& p, const void* map, Place at,
                                          int step, int y, int x) {
    const auto stored = *reinterpret_cast<const Quad<Stored>*>(row(p, map, at, step, y) + x);
    Quad<float> quad;
#pragma unroll
    for (int k = 0; k < 4; ++k) quad.v[k] = to_float(stored.v[k]);
    return quad;
  }
};

// A map of int8 values: one step is four channels of a group in one int, zero beyond the group.
struct Int8Map {
  using Element = int;
  using Sum = int;

  __device__ static int depth(const CorrelationParams& p) { return p.channels / p.groups; }
  __device__ static int steps(const CorrelationParams& p) { return (depth(p) + 3) / 4; }

  __device__ static int load(const CorrelationParams& p, const void* map, Place at, int step, int y,
                             int x) {
    const auto* bytes = static_cast<const unsigned char*>(map);
    const long long plane = static_cast<long long>(p.height) * p.width;
    const long long pixel = static_cast<long long>(y) * p.width + x;
    const int first = at.group * depth(p) + 4 * step;
    const int count = min(4, depth(p) - 4 * step);
    unsigned int word = 0;
#pragma unroll 1
    for (int k = 0; k < count; ++k) {
      const int c = first + k;
      const long long from =
          p.packed ? ((static_cast<long long>(at.image) * ((p.channels + 3) / 4) + c / 4) * plane +
                      pixel) * 4 + c % 4
                   : (static_cast<long long>(at.image) * p.channels + c) * plane + pixel;
      word |= static_cast<unsigned int>(bytes[from]) << (8 * k);
    }
    return static_cast<int>(word);
  }
  __device__ static Quad<int> load_quad(const CorrelationParams& p, const void* map, Place at,
                                        int step, int y, int x) {
    const auto* bytes = static_cast<const unsigned char*>(map);
    const long long plane = static_cast<long long>(p.height) * p.width;
    const long long pixel = static_cast<long long>(y) * p.width + x;
    const int first = at.group * depth(p) + 4 * step;
    const int count = min(4, depth(p) - 4 * step);
    Quad<int> quad = {};
    if (p.packed && first % 4 == 0) {
      const long long pack = static_cast<long long>(at.image) * ((p.channels + 3) / 4) + first / 4;
      quad = *reinterpret_cast<const Quad<int>*>(bytes + (pack * plane + pixel) * 4);
      const int inside = static_cast<int>(0xffffffffu >> (8 * (4 - count)));
#pragma unroll
      for (int k = 0; k < 4; ++k) quad.v[k] &= inside;
      return quad;
    }
    if (p.packed) {
#pragma unroll
      for (int k = 0; k < 4; ++k) quad.v[k] = load(p, map, at, step, y, x + k);
      return quad;
    }
    const long long channel = static_cast<long long>(at.image) * p.channels + first;
#pragma unroll 1
    for (int c = 0; c < count; ++c) {  // four pixels of each channel: transposed into four channels
      const auto four =
          *reinterpret_cast<const unsigned int*>(bytes + (channel + c) * plane + pixel);
#pragma unroll
      for (int k = 0; k < 4; ++k)
        quad.v[k] |= static_cast<int>((four >> (8 * k) & 0xffu) << (8 * c));
    }
    return quad;
  }
};

// Columns around a thread's pixels. The kernels for R = 4 also do larger radii, nine horizontal
// lags at a time.
template <int R>
struct Window {
  static constexpr int kLags = 2 * R + 1;
  static constexpr int kShift = (4 - R % 4) % 4;  // makes the first column a multiple of four
  static constexpr int kChunks = (kShift + kPixels + kLags - 1 + 3) / 4;
  static constexpr int kRowChunks = kTileColumns / 4 + kChunks - 2;
  // At most so many rows in a block: with kBlocks of them in a multiprocessor everything still
  // stays in registers, on each architecture, as long as the loops over channels are not unrolled.
  static constexpr int kRows = R == 0 ? 16 : R == 1 ? 8 : R == 4 ? 3 : 4;
  static constexpr int kBlocks = R == 0 ? 6 : R == 1 ? 4 : R == 2 ? 3 : 2;
  static constexpr int kMaxThreads = kTileColumns / kPixels * kRows * kLags;
};

__device__ inline int thread_number() {
  return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
}
__device__ inline int thread_count() { return blockDim.x * blockDim.y * blockDim.z; }
__device__ constexpr int slot(int chunk) { return chunk / 2 + chunk % 2 * kOddHalf; }

// Says whether any eight neighbouring threads write rows of so many chunks without a bank conflict.
__device__ constexpr bool is_conflict_free(int chunks, int stride) {
  for (int first = 0; first < 8 * chunks; first += 8) {
    unsigned int groups = 0;
    for (int i = first; i < first + 8; ++i)
      groups |= 1u << (i / chunks * stride + slot(i % chunks)) % 8;
    if (groups != 0xffu) return false;
  }
  return true;
}

// A rectangle of a map in shared memory, and where it comes from.
template <class Map, int kChunks, int kRowStride>
struct Stage {
  static_assert(is_conflict_free(kChunks, kRowStride), "threads would wait for a memory bank");
  using Element = typename Map::Element;
  using Sum = typename Map::Sum;
  Quad<Element>* shared;  // [step][row][slot]
  int rows, first_y, first_x;

  __device__ void fill(const CorrelationParams& p, const void* map, Place at, int first_step,
                       int count) const {
    const bool vectors = p.aligned && p.dilation == 1 && first_x % 4 == 0;
    for (int i = thread_number(); i < count * rows * kChunks; i += thread_count()) {
      const int chunk = i % kChunks, row = i / kChunks % rows, step = i / kChunks / rows;
      const int y = (first_y + row) * p.dilation + at.phase_y;
      const int column = first_x + 4 * chunk;
      Quad<Element> quad = {};
      if (y >= 0 && y < p.height) {
        if (vectors) {  // a chunk lies inside the row or outside
          if (column >= 0 && column < p.width)
            quad = Map::load_quad(p, map, at, first_step + step, y, column);
        } else {
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            const int x = (column + k) * p.dilation + at.phase_x;
            if (x >= 0 && x < p.width) quad.v[k] = Map::load(p, map, at, first_step + step, y, x);
          }
        }
      }
      shared[(step * rows + row) * kRowStride + slot(chunk)] = quad;
    }
  }

  // Adds each pixel's squares to ``squares`` [row][slot]; the first call sets them.
  __device__ void add_squares(Quad<Sum>* squares, int count, bool first) const {
    for (int i = thread_number(); i < rows * kChunks; i += thread_count()) {
      const int at = i / kChunks * kRowStride + slot(i % kChunks);
      Quad<Sum> sum = {};
      if (!first) sum = squares[at];
      for (int step = 0; step < count; ++step) {
        const Quad<Element> quad = shared[step * rows * kRowStride + at];
#pragma unroll
        for (int k = 0; k < 4; ++k) sum.v[k] = multiply_add(quad.v[k], quad.v[k], sum.v[k]);
      }
      squares[at] = sum;
    }
  }
};

template <class T>
__device__ inline void store(const CorrelationParams& p, void* out, long long row, int column,
                             Place at, const float* values) {
  T* to = static_cast<T*>(out) + row * p.width;
  if (p.aligned && p.dilation == 1) {
#pragma unroll
    for (int half = 0; half < kPixels; half += 4) {
      Quad<T> quad;
#pragma unroll
      for (int k = 0; k < 4; ++k) quad.v[k] = from_float<T>(values[half + k], p.out_scale);
      if (column + half < p.width) *reinterpret_cast<Quad<T>*>(to + column + half) = quad;
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < kPixels; ++k) {
    const int x = (column + k) * p.dilation + at.phase_x;
    if (x < p.width) to[x] = from_float<T>(values[k], p.out_scale);
  }
}

__device__ inline void store_as(float*, const CorrelationParams& p, void* out, long long row,
                                int column, Place at, const float* values) {
  store<float>(p, out, row, column, at, values);
}
__device__ inline void store_as(Half*, const CorrelationParams& p, void* out, long long row,
                                int column, Place at, const float* values) {
  store<Half>(p, out, row, column, at, values);
}
__device__ inline void store_as(signed char*, const CorrelationParams& p, void* out, long long row,
                                int column, Place at, const float* values) {
  if (p.out_type == 0) store<float>(p, out, row, column, at, values);
  if (p.out_type == 1) store<Half>(p, out, row, column, at, values);
  if (p.out_type == 2) store<signed char>(p, out, row, column, at, values);
}

template <class Map, class Stored, int R>
__device__ void correlate(const CorrelationParams& p, const void* a, const void* b, void* out) {
  using Element = typename Map::Element;
  using Sum = typename Map::Sum;
  using W = Window<R>;
  const int lags = 2 * p.radius + 1;
  const int rows = blockDim.y, reach_rows = rows + blockDim.z - 1;

  // Blocks count slices of the window first, so that those that read the same tile run together.
  int rest = blockIdx.x;
  const int wide_slices = (lags + W::kLags - 1) / W::kLags;
  const int high_slices = (lags + blockDim.z - 1) / blockDim.z;
  const int wide = rest % wide_slices;
  rest /= wide_slices;
  const int high = rest % high_slices;
  rest /= high_slices;
  const int lattice_columns = (p.width + p.dilation - 1) / p.dilation;
  const int lattice_rows = (p.height + p.dilation - 1) / p.dilation;
  const int tiles_x = (lattice_columns + kTileColumns - 1) / kTileColumns;
  const int tiles_y = (lattice_rows + rows - 1) / rows;
  const int tile_x = rest % tiles_x * kTileColumns;
  rest /= tiles_x;
  const int tile_y = rest % tiles_y * rows;
  rest /= tiles_y;
  Place at;
  at.group = rest % p.groups;
  rest /= p.groups;
  at.phase_x = rest % p.dilation;
  rest /= p.dilation;
  at.phase_y = rest % p.dilation;
  at.image = rest / p.dilation;

  const int first_dy = high * blockDim.z;     // from the window's first row
  const int first_dx = wide * W::kLags;       // from the window's first column
  CCLSEG_SHARED_CHUNKS(memory);
  auto* shared_a = reinterpret_cast<Quad<Element>*>(memory);
  auto* shared_b = shared_a + p.stage_steps * rows * kRowA;
  auto* squares_a = reinterpret_cast<Quad<Sum>*>(shared_b + p.stage_steps * reach_rows * kRowB);
  auto* squares_b = squares_a + rows * kRowA;
  const Stage<Map, kTileColumns / 4, kRowA> stage_a = {shared_a, rows, tile_y, tile_x};
  const Stage<Map, W::kRowChunks, kRowB> stage_b = {
      shared_b, reach_rows, tile_y - p.radius + first_dy,
      tile_x - p.radius + first_dx - W::kShift};

  const int in_a = threadIdx.y * kRowA + threadIdx.x;
  const int in_b = (threadIdx.y + threadIdx.z) * kRowB + threadIdx.x;
  Sum sums[W::kLags][kPixels] = {};
  for (int first = 0; first < Map::steps(p); first += p.stage_steps) {
    const int count = min(p.stage_steps, Map::steps(p) - first);
    __syncthreads();  // all have read what was staged before
    stage_a.fill(p, a, at, first, count);
    stage_b.fill(p, b, at, first, count);
    __syncthreads();
#pragma unroll 1
    for (int step = 0; step < count; ++step) {
      Quad<Element> left[kPixels / 4], right[W::kChunks];
#pragma unroll
      for (int j = 0; j < kPixels / 4; ++j)
        left[j] = shared_a[step * rows * kRowA + in_a + slot(j)];
#pragma unroll
      for (int j = 0; j < W::kChunks; ++j)
        right[j] = shared_b[step * reach_rows * kRowB + in_b + slot(j)];
#pragma unroll
      for (int lag = 0; lag < W::kLags; ++lag) {
#pragma unroll
        for (int k = 0; k < kPixels; ++k) {
          const int column = k + lag + W::kShift;
          sums[lag][k] =
              multiply_add(left[k / 4].v[k % 4], right[column / 4].v[column % 4], sums[lag][k]);
        }
      }
    }
    if (p.normalize) {
      stage_a.add_squares(squares_a, count, first == 0);
      stage_b.add_squares(squares_b, count, first == 0);
    }
  }
  if (p.normalize) __syncthreads();

  const int y = (tile_y + static_cast<int>(threadIdx.y)) * p.dilation + at.phase_y;
  const int dy = first_dy + threadIdx.z;
  if (y >= p.height || dy >= lags) return;
  const float mean_scale = p.scale / static_cast<float>(p.channels / p.groups);
  float norm_a[kPixels], norm_b[4 * W::kChunks];
  if (p.normalize) {
#pragma unroll
    for (int k = 0; k < kPixels; ++k)
      norm_a[k] = sqrtf(static_cast<float>(squares_a[in_a + slot(k / 4)].v[k % 4]));
#pragma unroll
    for (int k = 0; k < 4 * W::kChunks; ++k)
      norm_b[k] = sqrtf(static_cast<float>(squares_b[in_b + slot(k / 4)].v[k % 4]));
  }
#pragma unroll
  for (int lag = 0; lag < W::kLags; ++lag) {
    const int dx = first_dx + lag;
    if (dx >= lags) continue;
    float values[kPixels];
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
      const float sum = static_cast<float>(sums[lag][k]);
      if (p.normalize)
        values[k] =
            sum * p.scale / fmaxf(norm_a[k] * norm_b[k + lag + W::kShift] * p.scale, kEps);
      else
        values[k] = sum * mean_scale;
    }
    const long long channel =
        (static_cast<long long>(at.image) * p.groups + at.group) * lags * lags + dy * lags + dx;
    store_as(static_cast<Stored*>(nullptr), p, out, channel * p.height + y,
             tile_x + kPixels * static_cast<int>(threadIdx.x), at, values);
  }
}

}  // namespace

#define CCLSEG_KERNEL(type, Map, Stored, R)                                                  \
  extern "C" __global__ void __launch_bounds__(Window<R>::kMaxThreads, Window<R>::kBlocks)   \
      cclseg_correlation_##type##_r##R(CorrelationParams p, const void* a, const void* b,    \
                                       void* out) {                                          \
    correlate<Map, Stored, R>(p, a, b, out);                                                 \
  }
#define CCLSEG_KERNELS(type, Map, Stored) \
  CCLSEG_KERNEL(type, Map, Stored, 0)     \
  CCLSEG_KERNEL(type, Map, Stored, 1)     \
  CCLSEG_KERNEL(type, Map, Stored, 2)     \
  CCLSEG_KERNEL(type, Map, Stored, 3)     \
  CCLSEG_KERNEL(type, Map, Stored, 4)

// A compiler at run time defines the one kernel that it needs, to be done sooner.
#if !defined(CCLSEG_ENTRIES)
#define CCLSEG_ENTRIES                            \
  CCLSEG_KERNELS(f32, FloatingMap<float>, float)  \
  CCLSEG_KERNELS(f16, FloatingMap<Half>, Half)    \
  CCLSEG_KERNELS(s8, Int8Map, signed char)
#endif
CCLSEG_ENTRIES
