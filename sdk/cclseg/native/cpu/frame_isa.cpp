// The frame kernels, written once and compiled once per instruction set. Compiled without
// contraction to fused multiply-adds, so that every sum is rounded as numpy rounds it.
//
// Classes: the frame is cut along the centres of the logits into cells of stride x stride pixels,
// and each cell's pixels lie between the same four logits, its corners. Rounding is monotone, so a
// class that is highest at all four corners is highest in the whole cell, up to the rounding of
// the interpolation, for which a margin is kept (kMargin). Such cells are filled. In all others the
// classes that can win are interpolated exactly as postprocess.enlarged does.
#include <cstdlib>
#include <cstring>

#include "frame.h"

#if defined(__AVX512BW__)
#define CCLSEG_ISA cclseg_frame_avx512
#define CCLSEG_KERNEL kFrameAvx512
#define CCLSEG_KERNEL_NAME "avx512"
#elif defined(__AVX2__)
#define CCLSEG_ISA cclseg_frame_avx2
#define CCLSEG_KERNEL kFrameAvx2
#define CCLSEG_KERNEL_NAME "avx2"
#else
#define CCLSEG_ISA cclseg_frame_base
#define CCLSEG_KERNEL kFrameBase
#if defined(__aarch64__)
#define CCLSEG_KERNEL_NAME "neon"
#else
#define CCLSEG_KERNEL_NAME "portable"
#endif
#endif

namespace CCLSEG_ISA {
namespace {

using cclseg::Enlargement;
using cclseg::Share;
using cclseg::Window;

#if defined(__AVX512BW__)
constexpr int V = 16;
bool is_supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#elif defined(__AVX2__)
constexpr int V = 8;
bool is_supported() { return __builtin_cpu_supports("avx2"); }
#else
constexpr int V = 4;
bool is_supported() { return true; }
#endif

typedef float Floats __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * V), aligned(4), may_alias));

Floats load(const float* place) { return *reinterpret_cast<const Floats*>(place); }
void store(float* place, Floats value) { *reinterpret_cast<Floats*>(place) = value; }
Floats higher(Floats a, Floats b) { return a > b ? a : b; }
Floats lower(Floats a, Floats b) { return a < b ? a : b; }
int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

bool any(Ints flags) {
  int32_t found = 0;
  for (int i = 0; i < V; ++i) found |= flags[i];
  return found != 0;
}

// ---- Normalising

constexpr int64_t kChunk = 1024;  // columns that are taken apart at a time

// Folds an index beyond the end back inside, the last one not repeated.
int64_t mirrored(int64_t index, int64_t length) {
  if (length == 1) return 0;
  const int64_t period = 2 * (length - 1);
  index %= period;
  return smaller(index, period - index);
}

// Takes apart three interleaved channels; a loop that compilers turn into shuffles.
void split_three(const uint8_t* pixels, int64_t count, uint8_t (*channels)[kChunk]) {
  for (int64_t x = 0; x < count; ++x) {
    channels[0][x] = pixels[3 * x];
    channels[1][x] = pixels[3 * x + 1];
    channels[2][x] = pixels[3 * x + 2];
  }
}

void scale(const uint8_t* values, int64_t count, float mean, float deviation, float* out) {
  for (int64_t x = 0; x < count; ++x) {
    out[x] = (static_cast<float>(values[x]) - mean) / deviation;
  }
}

// Normalises columns [x, x + count) of one row of the window, at most kChunk.
void normalise_row(const Window& w, const uint8_t* row, int64_t y, int64_t x, int64_t count,
                   float* out) {
  uint8_t channels[3][kChunk];
  const int64_t first = w.left + x;
  const int64_t inside = first >= w.width ? 0 : smaller(count, w.width - first);
  const bool is_colour = w.bands == 3 && w.column_step == 3 && w.channel_step == 1;
  if (is_colour) split_three(row + 3 * first, inside, channels);
  for (int64_t band = 0; band < w.bands; ++band) {
    const uint8_t* channel = row + w.places[band] * w.channel_step;
    uint8_t* values = channels[is_colour ? w.places[band] : 0];
    if (!is_colour) {
      for (int64_t i = 0; i < inside; ++i) values[i] = channel[(first + i) * w.column_step];
    }
    for (int64_t i = inside; i < count; ++i) {
      values[i] = channel[mirrored(first + i, w.width) * w.column_step];
    }
    scale(values, count, w.mean[band], w.deviation[band],
          out + (band * w.rows + y) * w.columns + x);
  }
}

void normalise(const Window& w, float* out) {
  for (int64_t y = 0; y < w.rows; ++y) {
    const uint8_t* row = w.image + mirrored(w.top + y, w.height) * w.row_step;
    for (int64_t x = 0; x < w.columns; x += kChunk) {
      normalise_row(w, row, y, x, smaller(kChunk, w.columns - x), out);
    }
  }
}

// ---- Blending

void add(const Share& s, const float* logits, float* canvas) {
  for (int64_t i = 0; i < s.classes; ++i) {
    for (int64_t y = 0; y < s.rows; ++y) {
      const float* __restrict values = logits + (i * s.rows + y) * s.columns;
      float* __restrict sums =
          canvas + (i * s.canvas_rows + s.top + y) * s.canvas_columns + s.left;
      const float row_weight = s.row_weights[y];
      for (int64_t x = 0; x < s.columns; ++x) {
        sums[x] += values[x] * (row_weight * s.column_weights[x]);
      }
    }
  }
}

// ---- Classes

// The highest and the lowest value at the corners of V cells.
Floats highest(const float* top, const float* bottom) {
  return higher(higher(load(top), load(top + 1)), higher(load(bottom), load(bottom + 1)));
}
Floats lowest(const float* top, const float* bottom) {
  return lower(lower(load(top), load(top + 1)), lower(load(bottom), load(bottom + 1)));
}

// One class may be called higher than another in a cell when it is higher at the corners by more
// than this share of the largest logit there. Interpolating rounds six times, each time by at most
// 2^-24 of that logit, and does so for both classes.
constexpr float kMargin = 1.0f / (1 << 19);
constexpr float kTiny = 1e-37f;  // below this, rounding is no longer in proportion

// Where the pixels of one axis lie between logits. Cell c, from -1 on, has the pixels from
// c * stride + stride / 2 on, and lies between logits c and c + 1, held inside.
float share_of(int64_t pixel, int64_t stride, int64_t cells) {
  double place = (static_cast<double>(pixel) + 0.5) / static_cast<double>(stride) - 0.5;
  const double last = static_cast<double>(cells - 1);
  place = place < 0 ? 0 : place > last ? last : place;
  return static_cast<float>(place - static_cast<double>(static_cast<int64_t>(place)));
}

// One row of logits, with what is known of each place. Place c + 1 is logit c; the outermost ones
// are repeated to the left and to the right.
struct Row {
  float* logits;  // (classes, places)
  float* margin;  // of the highest class over the second
  float* size;    // largest absolute logit
  int32_t* winner;
};

template <class Id>
class Classes {
 public:
  Classes(const Enlargement& e, const float* logits, Id* mask)
      : e_(e),
        logits_(logits),
        mask_(mask),
        half_(e.stride / 2),
        blocks_((e.columns + 1 + V - 1) / V),
        places_(blocks_ * V + V) {}

  bool run() {
    const int64_t row_floats = (e_.classes + 3) * places_;
    const int64_t shares = e_.stride * places_;
    const int64_t floats = 2 * row_floats + 2 * shares;
    const size_t bytes = sizeof(float) * floats + sizeof(int64_t) * e_.classes +
                         sizeof(Id) * e_.stride * V;
    void* memory = malloc(bytes);
    if (memory == nullptr) return false;
    possible_ = static_cast<int64_t*>(memory);
    float* next = reinterpret_cast<float*>(possible_ + e_.classes);
    for (Row& row : rows_) {
      row.logits = next;
      row.margin = next + e_.classes * places_;
      row.size = row.margin + places_;
      row.winner = reinterpret_cast<int32_t*>(row.size + places_);
      next += row_floats;
    }
    share_ = next;
    rest_ = share_ + shares;
    pixels_ = reinterpret_cast<Id*>(rest_ + shares);
    share_columns();
    for (int64_t cell = -1; cell < e_.rows; ++cell) cell_row(cell);
    free(memory);
    return true;
  }

 private:
  void share_columns() {
    for (int64_t phase = 0; phase < e_.stride; ++phase) {
      for (int64_t place = 0; place < places_; ++place) {
        const int64_t pixel = (place - 1) * e_.stride + half_ + phase;
        const float share = share_of(pixel, e_.stride, e_.columns);
        share_[phase * places_ + place] = share;
        rest_[phase * places_ + place] = 1 - share;
      }
    }
  }

  void read(Row& row, int64_t y) {
    const int64_t plane = e_.rows * e_.columns;
    for (int64_t k = 0; k < e_.classes; ++k) {
      const float* source = logits_ + k * plane + y * e_.columns;
      float* places = row.logits + k * places_;
      places[0] = source[0];
      memcpy(places + 1, source, sizeof(float) * e_.columns);
      for (int64_t i = e_.columns + 1; i < places_; ++i) places[i] = source[e_.columns - 1];
    }
    for (int64_t i = 0; i < places_; i += V) look_at(row, i);
  }

  // Finds the highest class at V places.
  void look_at(Row& row, int64_t i) {
    Floats best = load(row.logits + i), second = best - __builtin_inff();
    Floats size = higher(best, -best);
    Ints winner = {};
    for (int64_t k = 1; k < e_.classes; ++k) {
      const Floats value = load(row.logits + k * places_ + i);
      const Ints wins = value > best;
      second = wins ? best : higher(value, second);
      best = wins ? value : best;
      winner = wins ? Ints{} + static_cast<int32_t>(k) : winner;
      size = higher(size, higher(value, -value));
    }
    store(row.margin + i, best - second);
    store(row.size + i, size);
    memcpy(row.winner + i, &winner, sizeof winner);
  }

  void cell_row(int64_t cell) {
    // The lower row of the last cells is the upper one of these.
    const Row upper = rows_[1];
    if (cell < 0) read(rows_[1], 0);
    if (cell >= 0 && cell + 1 < e_.rows) {
      rows_[1] = rows_[0];
      rows_[0] = upper;
      read(rows_[1], cell + 1);
    }
    const bool is_edge = cell < 0 || cell + 1 == e_.rows;
    top_ = is_edge ? &rows_[1] : &rows_[0];
    bottom_ = &rows_[1];
    first_row_ = cell * e_.stride + half_;
    for (int64_t block = 0; block < blocks_; ++block) {
      if (is_settled(block * V)) {
        fill(block * V);
      } else {
        find_possible(block * V);
        interpolate(block * V);
      }
    }
  }

  // Whether one class is the highest in each of V cells.
  bool is_settled(int64_t i) const {
    Ints winner, others[3];
    memcpy(&winner, top_->winner + i, sizeof winner);
    memcpy(&others[0], top_->winner + i + 1, sizeof winner);
    memcpy(&others[1], bottom_->winner + i, sizeof winner);
    memcpy(&others[2], bottom_->winner + i + 1, sizeof winner);
    const Ints differs = (winner ^ others[0]) | (winner ^ others[1]) | (winner ^ others[2]);
    return !any(differs | ~(lowest(top_->margin + i, bottom_->margin + i) > margin_at(i)));
  }

  // By how much one class must be higher than another at the corners of V cells.
  Floats margin_at(int64_t i) const {
    return highest(top_->size + i, bottom_->size + i) * kMargin + kTiny;
  }

  // Lists the classes that can be the highest in one of V cells: those whose highest corner reaches
  // the lowest corner of every other class.
  void find_possible(int64_t i) {
    Floats floor = Floats{} - __builtin_inff();
    for (int64_t k = 0; k < e_.classes; ++k) {
      const int64_t place = k * places_ + i;
      floor = higher(floor, lowest(top_->logits + place, bottom_->logits + place));
    }
    floor -= margin_at(i);
    count_ = 0;
    for (int64_t k = 0; k < e_.classes; ++k) {
      const int64_t place = k * places_ + i;
      if (any(~(highest(top_->logits + place, bottom_->logits + place) < floor))) {
        possible_[count_++] = k;
      }
    }
  }

  void fill(int64_t i) {
    Ints winner;
    memcpy(&winner, top_->winner + i, sizeof winner);
    const Ints four[4] = {winner, winner, winner, winner}, one[1] = {winner};
    int64_t phase = 0;
    for (; phase + 4 <= e_.stride; phase += 4) put(four, phase);
    for (; phase < e_.stride; ++phase) put(one, phase);
    for (int64_t y = 0; y < e_.stride; ++y) write(first_row_ + y, i);
  }

  void interpolate(int64_t i) {
    for (int64_t y = first_row_; y < first_row_ + e_.stride; ++y) {
      if (y < 0 || y >= e_.height) continue;
      const float share = share_of(y, e_.stride, e_.rows);
      int64_t phase = 0;
      for (; phase + 4 <= e_.stride; phase += 4) interpolate<4>(i, share, phase);
      for (; phase < e_.stride; ++phase) interpolate<1>(i, share, phase);
      write(y, i);
    }
  }

  // Finds the classes of some columns of each of V cells in one row of pixels.
  template <int Phases>
  void interpolate(int64_t i, float share, int64_t phase) {
    const float rest = 1 - share;
    Floats best[Phases];
    Ints ids[Phases];
    for (int p = 0; p < Phases; ++p) {
      best[p] = Floats{} - __builtin_inff();
      ids[p] = Ints{};
    }
    for (int64_t n = 0; n < count_; ++n) {
      const float* top = top_->logits + possible_[n] * places_ + i;
      const float* bottom = bottom_->logits + possible_[n] * places_ + i;
      const Floats left = load(top) * rest + load(bottom) * share;
      const Floats right = load(top + 1) * rest + load(bottom + 1) * share;
      const Ints id = Ints{} + static_cast<int32_t>(possible_[n]);
#pragma GCC unroll 4
      for (int p = 0; p < Phases; ++p) {
        const Floats value = left * load(rest_ + (phase + p) * places_ + i) +
                             right * load(share_ + (phase + p) * places_ + i);
        const Ints wins = value > best[p];
        ids[p] = wins ? id : ids[p];
        best[p] = wins ? value : best[p];
      }
    }
    put(ids, phase);
  }

  // Keeps the classes of some columns of each of V cells until their row is written.
  template <int Phases>
  void put(const Ints (&ids)[Phases], int64_t phase) {
    if (Phases == 4 && sizeof(Id) == 1) {
      const Ints four = ids[0] | ids[1] << 8 | ids[2] << 16 | ids[3] << 24;
      if (e_.stride == 4) {
        memcpy(pixels_, &four, sizeof four);
        return;
      }
      for (int c = 0; c < V; ++c) {
        const int32_t pixels = four[c];
        memcpy(pixels_ + c * e_.stride + phase, &pixels, sizeof pixels);
      }
      return;
    }
    for (int p = 0; p < Phases; ++p) {
      for (int c = 0; c < V; ++c) {
        pixels_[c * e_.stride + phase + p] = static_cast<Id>(ids[p][c]);
      }
    }
  }

  // Writes the pixels of V cells into row y of the mask, as far as they lie inside.
  void write(int64_t y, int64_t i) {
    if (y < 0 || y >= e_.height) return;
    const int64_t first = (i - 1) * e_.stride + half_;
    const int64_t begin = first < 0 ? -first : 0;
    const int64_t end = smaller(V * e_.stride, e_.width - first);
    if (begin >= end) return;
    Id* row = mask_ + y * e_.width + first;
    if (end - begin == 4 * V) {  // of a known size, so that no function is called
      memcpy(row + begin, pixels_ + begin, sizeof(Id) * 4 * V);
    } else {
      memcpy(row + begin, pixels_ + begin, sizeof(Id) * (end - begin));
    }
  }

  const Enlargement& e_;
  const float* logits_;
  Id* mask_;
  const int64_t half_, blocks_, places_;
  Row rows_[2];
  const Row* top_ = nullptr;
  const Row* bottom_ = nullptr;
  int64_t first_row_ = 0, count_ = 0;
  int64_t* possible_ = nullptr;
  float* share_ = nullptr;
  float* rest_ = nullptr;
  Id* pixels_ = nullptr;
};

bool class_ids(const Enlargement& e, const float* logits, void* mask) {
  if (e.classes <= 255) return Classes<uint8_t>(e, logits, static_cast<uint8_t*>(mask)).run();
  return Classes<uint16_t>(e, logits, static_cast<uint16_t*>(mask)).run();
}

}  // namespace
}  // namespace CCLSEG_ISA

namespace cclseg {
extern const FrameKernel CCLSEG_KERNEL = {CCLSEG_KERNEL_NAME, CCLSEG_ISA::is_supported,
                                          CCLSEG_ISA::normalise, CCLSEG_ISA::add,
                                          CCLSEG_ISA::class_ids};
}  // namespace cclseg
