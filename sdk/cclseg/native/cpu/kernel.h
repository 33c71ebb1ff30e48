// The tile kernel, written once for all instruction sets. Each isa_*.cpp includes this file inside
// a namespace of its own, so that the linker cannot mix code of two instruction sets.
//
// A tile of b, with the border that its windows reach into, is copied row by row into
// [row][channel unit][x]; a "unit" is 4 bytes: one float, four int8 or two int16 of neighbouring
// channels. A register then holds one unit of V neighbouring places, and one multiply-add per lag
// and unit does V places. Two rows of a, one dilation apart, share each load of b.

#include <cstdlib>
#include <cstring>

#include "correlation.h"

namespace CCLSEG_ISA {
namespace {

using cclseg::kEps;
using cclseg::Problem;
using cclseg::Tile;

template <int V>
struct Lanes {
  typedef float Floats __attribute__((vector_size(4 * V), aligned(4), may_alias));
  typedef int32_t Ints __attribute__((vector_size(4 * V), aligned(4), may_alias));
};

// How float maps are multiplied. An arithmetic for int8 maps has the same members.
template <int V, int MaxLags>
struct FloatArithmetic {
  static constexpr int kLanes = V;
  static constexpr int kMaxLags = MaxLags;  // lags that are summed in registers at a time
  static constexpr int kChannelsPerUnit = 1;
  static constexpr bool kNeedsOffset = false;
  using Source = float;
  using Floats = typename Lanes<V>::Floats;
  using Sums = Floats;
  using Units = Floats;
  static Sums multiply_add(Sums sums, Units a, Units b) { return sums + a * b; }
  static Floats to_float(Sums sums, const int32_t*) { return sums; }
  static int32_t pack(const float* const* channels, int, int64_t x) {
    int32_t unit;
    memcpy(&unit, channels[0] + x, sizeof unit);
    return unit;
  }
  static int32_t pack_left(const float* const* channels, int count, int64_t x) {
    return pack(channels, count, x);
  }
};

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Reads a value of a caller's map, which may be aligned to nothing.
template <class T>
T load(const T* place) {
  T value;
  memcpy(&value, place, sizeof value);
  return value;
}

// 64-byte aligned pieces of one allocation.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : memory_(static_cast<char*>(malloc(bytes + 64))), next_(memory_) {
    next_ += (64 - reinterpret_cast<uintptr_t>(memory_) % 64) % 64;
  }
  ~Scratch() { free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  bool failed() const { return memory_ == nullptr; }
  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += round_up(count * sizeof(T), 64);
    return piece;
  }

 private:
  char* memory_;
  char* next_;
};

template <class A>
class TileKernel {
  using Source = typename A::Source;
  using Floats = typename A::Floats;
  static constexpr int V = A::kLanes;

 public:
  static bool run(const Tile& tile) {
    TileKernel kernel(tile);
    Scratch scratch(kernel.scratch_bytes());
    if (scratch.failed()) return false;
    kernel.take_memory(scratch);
    kernel.pack_right();
    kernel.correlate_rows();
    return true;
  }

 private:
  explicit TileKernel(const Tile& tile)
      : tile_(tile),
        problem_(*tile.problem),
        depth_(problem_.channels / problem_.groups),
        units_((depth_ + A::kChannelsPerUnit - 1) / A::kChannelsPerUnit),
        reach_(problem_.radius * problem_.dilation),
        side_(2 * problem_.radius + 1),
        plane_(problem_.height * problem_.width),
        left_stride_(avoid_aliasing(round_up(tile.columns, V))),
        right_stride_(avoid_aliasing(round_up(round_up(tile.columns, V) + 2 * reach_, V))),
        right_rows_(tile.rows + 2 * reach_) {
    const int64_t first = (tile.image * problem_.channels + tile.group * depth_) * plane_;
    a_ = static_cast<const Source*>(tile.a) + first;
    b_ = static_cast<const Source*>(tile.b) + first;
    out_ = tile.out +
           (tile.image * problem_.groups + tile.group) * side_ * side_ * plane_;
    const float scale = problem_.a_scale * problem_.b_scale;
    scale_ = problem_.normalize ? scale : scale / static_cast<float>(depth_);
  }

  // Strides of whole kilobytes would put all channels into the same cache sets.
  static int64_t avoid_aliasing(int64_t stride) { return stride % 256 ? stride : stride + 16; }

  size_t scratch_bytes() const {
    const int64_t left = 2 * left_stride_, right = right_rows_ * right_stride_;
    return 4 * ((left + right) * (units_ + 2)) + 8 * 64;
  }

  void take_memory(Scratch& scratch) {
    right_ = scratch.take<int32_t>(right_rows_ * units_ * right_stride_);
    left_ = scratch.take<int32_t>(2 * units_ * left_stride_);
    right_norms_ = scratch.take<float>(right_rows_ * right_stride_);
    left_norms_ = scratch.take<float>(2 * left_stride_);
    offsets_ = scratch.take<int32_t>(right_rows_ * right_stride_);
  }

  void pack_right() {
    for (int64_t row = 0; row < right_rows_; ++row) {
      const int64_t y = tile_.y - reach_ + row;
      int32_t* packed = right_ + row * units_ * right_stride_;
      float* norms = right_norms_ + row * right_stride_;
      if (y < 0 || y >= problem_.height) {
        memset(packed, 0, 4 * units_ * right_stride_);
        memset(norms, 0, 4 * right_stride_);
        memset(offsets_ + row * right_stride_, 0, 4 * right_stride_);
        continue;
      }
      pack_row<false>(b_, y, tile_.x - reach_, right_stride_, packed);
      if (problem_.normalize) measure_row(b_, y, tile_.x - reach_, right_stride_, problem_.b_scale, norms);
      if (A::kNeedsOffset) sum_row(y, offsets_ + row * right_stride_);
    }
  }

  // Copies places x .. x + count of one row, zero outside the map.
  template <bool kIsLeft>
  void pack_row(const Source* map, int64_t y, int64_t x, int64_t count, int32_t* packed) const {
    const Range inside = inside_of(x, count);
    for (int64_t unit = 0; unit < units_; ++unit, packed += count) {
      const int64_t first = unit * A::kChannelsPerUnit;
      const int64_t left_over = depth_ - first;
      const int present = static_cast<int>(
          left_over < A::kChannelsPerUnit ? left_over : A::kChannelsPerUnit);
      const Source* channels[A::kChannelsPerUnit];
      for (int c = 0; c < A::kChannelsPerUnit; ++c) {
        channels[c] = map + (first + (c < present ? c : 0)) * plane_ + y * problem_.width + x;
      }
      memset(packed, 0, 4 * inside.begin);
      if (present == A::kChannelsPerUnit) {
        for (int64_t i = inside.begin; i < inside.end; ++i) {
          packed[i] = kIsLeft ? A::pack_left(channels, A::kChannelsPerUnit, i)
                              : A::pack(channels, A::kChannelsPerUnit, i);
        }
      } else {
        for (int64_t i = inside.begin; i < inside.end; ++i) {
          packed[i] = kIsLeft ? A::pack_left(channels, present, i) : A::pack(channels, present, i);
        }
      }
      memset(packed + inside.end, 0, 4 * (count - inside.end));
    }
  }

  // Writes the L2 norm over the channels of places x .. x + count of one row, 0 outside.
  void measure_row(const Source* map, int64_t y, int64_t x, int64_t count, float scale,
                   float* norms) const {
    const Range inside = inside_of(x, count);
    memset(norms, 0, 4 * count);
    for (int64_t c = 0; c < depth_; ++c) {
      const Source* channel = map + c * plane_ + y * problem_.width + x;
      for (int64_t i = inside.begin; i < inside.end; ++i) {
        const float value = static_cast<float>(load(channel + i));
        norms[i] += value * value;
      }
    }
    for (int64_t i = inside.begin; i < inside.end; ++i) norms[i] = __builtin_sqrtf(norms[i]) * scale;
  }

  // What an arithmetic that multiplies a + 128 has too much: 128 times the sum over the channels.
  void sum_row(int64_t y, int32_t* sums) const {
    const int64_t x = tile_.x - reach_;
    const Range inside = inside_of(x, right_stride_);
    memset(sums, 0, 4 * right_stride_);
    for (int64_t c = 0; c < depth_; ++c) {
      const Source* channel = b_ + c * plane_ + y * problem_.width + x;
      for (int64_t i = inside.begin; i < inside.end; ++i) {
        sums[i] += 128 * static_cast<int32_t>(load(channel + i));
      }
    }
  }

  struct Range {
    int64_t begin, end;
  };
  Range inside_of(int64_t x, int64_t count) const {
    const int64_t end = problem_.width - x;
    const Range range = {x < 0 ? -x : 0, end < count ? end : count};
    // A border wider than the map may lie outside of it altogether.
    if (range.begin >= count || range.end <= range.begin) return {0, 0};
    return range;
  }

  void correlate_rows() {
    const int64_t step = problem_.dilation;
    for (int64_t first = 0; first < tile_.rows; first += 2 * step) {
      for (int64_t row = first; row < first + step && row < tile_.rows; ++row) {
        correlate_pair(row, row + step < tile_.rows);
      }
    }
  }

  // Correlates a row of the tile, and with it the row one dilation below when there is one.
  void correlate_pair(int64_t row, bool is_pair) {
    const int64_t radius = problem_.radius, step = problem_.dilation;
    for (int i = 0; i < 1 + is_pair; ++i) {
      const int64_t y = tile_.y + row + i * step;
      pack_row<true>(a_, y, tile_.x, left_stride_, left_ + i * units_ * left_stride_);
      if (problem_.normalize) {
        measure_row(a_, y, tile_.x, left_stride_, problem_.a_scale, left_norms_ + i * left_stride_);
      }
    }
    // Lags outside, places inside: so only the planes of one row of lags are written at a time, and
    // their pages stay known to the processor.
    for (int64_t dy = -radius; dy <= radius + is_pair; ++dy) {
      for (int64_t x = 0; x < tile_.columns; x += V) {
        if (dy > radius) {
          window_row<1>(row, radius, 1, x);
        } else if (is_pair && dy > -radius) {
          window_row<2>(row, dy, 0, x);
        } else {
          window_row<1>(row, dy, 0, x);
        }
      }
    }
  }

  // One row of lags at V places. With two rows of a: the upper one at lag dy, the lower at dy - 1.
  template <int Rows>
  void window_row(int64_t row, int64_t dy, int64_t first, int64_t x) {
    const int64_t pieces = (side_ + A::kMaxLags - 1) / A::kMaxLags;
    const int64_t step = (side_ + pieces - 1) / pieces;
    for (int64_t lag = 0; lag < side_; lag += step) {
      const int64_t left_over = side_ - lag;
      some_lags<Rows>(left_over < step ? left_over : step, row, dy, lag, first, x);
    }
  }

  template <int Rows, int Lags = A::kMaxLags>
  void some_lags(int64_t count, int64_t row, int64_t dy, int64_t lag, int64_t first, int64_t x) {
    if (count == Lags) {
      block<Rows, Lags>(row, dy, lag, first, x);
    } else if constexpr (Lags > 1) {
      some_lags<Rows, Lags - 1>(count, row, dy, lag, first, x);
    }
  }

  template <int Rows, int Lags>
  __attribute__((noinline)) void block(int64_t row, int64_t dy, int64_t lag, int64_t first, int64_t x) {
    using Units = typename A::Units;
    const int64_t step = problem_.dilation;
    const int64_t right_row = row + (first + dy) * step + reach_;
    const int64_t right_x = x + lag * step;
    const int32_t* left = left_ + first * units_ * left_stride_ + x;
    const int32_t* right = right_ + right_row * units_ * right_stride_ + right_x;
    const int64_t next_row = units_ * left_stride_;
    typename A::Sums sums[Rows][Lags] = {};
    for (int64_t unit = 0; unit < units_; ++unit) {
      Units a[Rows];
#pragma GCC unroll 2
      for (int i = 0; i < Rows; ++i) a[i] = *reinterpret_cast<const Units*>(left + i * next_row);
#pragma GCC unroll 16
      for (int j = 0; j < Lags; ++j) {
        const Units b = *reinterpret_cast<const Units*>(right + j * step);
#pragma GCC unroll 2
        for (int i = 0; i < Rows; ++i) sums[i][j] = A::multiply_add(sums[i][j], a[i], b);
      }
      left += left_stride_;
      right += right_stride_;
    }
    const int64_t border = right_row * right_stride_ + right_x;
    const int64_t columns = tile_.columns - x < V ? tile_.columns - x : V;
#pragma GCC unroll 2
    for (int i = 0; i < Rows; ++i) {
      const int64_t y = tile_.y + row + (first + i) * step;
      const int64_t channel = (dy - i + problem_.radius) * side_ + lag;
      float* out = out_ + channel * plane_ + y * problem_.width + tile_.x + x;
      const float* left_norms = left_norms_ + (first + i) * left_stride_ + x;
#pragma GCC unroll 16
      for (int j = 0; j < Lags; ++j) {
        Floats result = A::to_float(sums[i][j], offsets_ + border + j * step) * scale_;
        if (problem_.normalize) {
          result = cosine(result, left_norms, right_norms_ + border + j * step);
        }
        if (columns == V) {
          *reinterpret_cast<Floats*>(out + j * plane_) = result;
        } else {
          memcpy(out + j * plane_, &result, 4 * columns);
        }
      }
    }
  }

  static Floats cosine(Floats products, const float* left_norms, const float* right_norms) {
    const Floats norms = *reinterpret_cast<const Floats*>(left_norms) *
                         *reinterpret_cast<const Floats*>(right_norms);
    const Floats eps = Floats{} + kEps;
    return products / (norms < eps ? eps : norms);  // not-a-number stays
  }

  const Tile& tile_;
  const Problem& problem_;
  const int64_t depth_, units_, reach_, side_, plane_;
  const int64_t left_stride_, right_stride_, right_rows_;
  const Source* a_;
  const Source* b_;
  float* out_;
  float scale_;
  int32_t* right_;
  int32_t* left_;
  float* right_norms_;
  float* left_norms_;
  int32_t* offsets_;
};

}  // namespace
}  // namespace CCLSEG_ISA
