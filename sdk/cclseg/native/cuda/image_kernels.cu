// A frame on a GPU before and after the network: normalised tiles, blended logits, class ids and
// confidence.
//
// Layout   Images (H, W, C) uint8 with any strides; tiles (N, C, h, w) fp32 or fp16; logits of tiles
//          (N, K, h, w) fp32; canvas (K, h, w) fp32; masks (H, W) uint8 or uint16; confidence (H, W)
//          fp32. All but images are dense.
// Numbers  Those of cclseg.preprocess.normalised, cclseg.tiling.Blender and
//          cclseg.postprocess.enlarged, bit for bit: each product and sum is rounded on its own and
//          in their order, and the first class wins a tie. Confidence is within the error of expf.
// Mapping  threadIdx.x = four neighbouring columns, .y = row, blockIdx.z = tile or class. No shared
//          memory: neighbours meet in the first-level cache.
//
// The file needs no header, so that NVRTC compiles it as it stands; compiled as plain C++ it takes
// CUDA's words from emulation.h and runs on a CPU.

#if !defined(__CUDACC__)
#include "emulation.h"
#endif

// Passed by value; gpu/image_kernels.py fills them.
struct Band {
  float mean, std;
  int place;  // of the band on the image's last axis
};

struct NormaliseParams {
  const unsigned char* image;
  void* tiles;
  const int* corners;  // (top, left) of the first of these tiles and of the next, in pixels
  const Band* bands;
  long long row_bytes, pixel_bytes, channel_bytes;
  int image_height, image_width;
  int height, width, channels;  // of a tile
  int half;                     // tiles are fp16
};

struct BlendParams {
  float* canvas;
  const float* logits;
  const int* corners;            // (top, left) of the frame's tiles, in pixels
  const float* row_weights;      // (rows of tiles, height)
  const float* column_weights;   // (columns of tiles, width)
  int canvas_height, canvas_width, classes;
  int height, width;             // of the logits of a tile
  int first, count;              // which tiles of the frame these are
  int tiles_across, stride;
};

struct ClassParams {
  const float* canvas;
  void* result;
  int canvas_height, canvas_width, classes;
  int height, width, stride;  // of the result; pixels per logit
};

namespace {

constexpr int kPixels = 4;  // of one thread, side by side

template <class T>
struct alignas(4 * sizeof(T)) Quad {
  T v[4];
};

struct Half {
  unsigned short bits;
};

__device__ inline Half to_half(float value) {
  Half narrow;
#if defined(__CUDACC__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(value));
#else
  narrow.bits = emulation::float_to_half(value);
#endif
  return narrow;
}

__device__ inline int first_column() {
  return kPixels * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}
__device__ inline int row_number() {
  return static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
}

// Writes the pixels of a thread that lie inside a row. Rows that are multiples of four start at
// addresses of whole quads, because allocations do.
template <class T>
__device__ inline void store(T* row, int x, int width, const Quad<T>& quad) {
  if (width % kPixels == 0) {
    *reinterpret_cast<Quad<T>*>(row + x) = quad;
    return;
  }
#pragma unroll
  for (int k = 0; k < kPixels; ++k)
    if (x + k < width) row[x + k] = quad.v[k];
}

// Folds a place beyond the end back inside, the edge pixel not repeated.
__device__ inline int mirrored(int place, int length) {
  if (place < length) return place;
  if (length == 1) return 0;
  const int period = 2 * (length - 1), step = place % period;
  return step < period - step ? step : period - step;
}

// Where a pixel lies between the logits of one axis.
struct Cell {
  int lower, upper;
  float share;  // of the upper one
};

__device__ inline Cell cell_of(int pixel, int stride, int length) {
  const int steps = 2 * pixel + 1 - stride;  // in halves of a pixel from the centre of the first
  if (steps <= 0) return {0, min(1, length - 1), 0.0f};
  const int lower = steps / (2 * stride);
  if (lower >= length - 1) return {length - 1, length - 1, 0.0f};
  return {lower, lower + 1,
          __fdiv_rn(static_cast<float>(steps - 2 * stride * lower),
                    static_cast<float>(2 * stride))};
}

__device__ inline float between(float lower, float upper, float share) {
  return __fadd_rn(__fmul_rn(lower, __fsub_rn(1.0f, share)), __fmul_rn(upper, share));
}

// Reads a class's enlarged logits at the four pixels of a thread. Where four pixels lie within one
// logit, three columns serve all of them.
class Enlarger {
 public:
  __device__ Enlarger(const ClassParams& p, int x, int y)
      : row_(cell_of(y, p.stride, p.canvas_height)),
        width_(p.canvas_width),
        within_one_(p.stride % kPixels == 0) {
#pragma unroll
    for (int k = 0; k < kPixels; ++k) columns_[k] = cell_of(x + k, p.stride, p.canvas_width);
  }

  __device__ Quad<float> operator()(const float* plane) const {
    const float* above = plane + static_cast<long long>(row_.lower) * width_;
    const float* below = plane + static_cast<long long>(row_.upper) * width_;
    const auto at = [&](int column) {
      return between(above[column], below[column], row_.share);
    };
    Quad<float> values;
    if (within_one_) {
      const int first = columns_[0].lower;
      const float left = at(first), middle = at(min(first + 1, width_ - 1)),
                  right = at(min(first + 2, width_ - 1));
#pragma unroll
      for (int k = 0; k < kPixels; ++k) {
        const bool later = columns_[k].lower > first;
        values.v[k] =
            between(later ? middle : left, later ? right : middle, columns_[k].share);
      }
      return values;
    }
#pragma unroll
    for (int k = 0; k < kPixels; ++k)
      values.v[k] = between(at(columns_[k].lower), at(columns_[k].upper), columns_[k].share);
    return values;
  }

 private:
  Cell row_;
  Cell columns_[kPixels];
  int width_;
  bool within_one_;
};

template <class Id>
__device__ void find_classes(const ClassParams& p) {
  const int x = first_column(), y = row_number();
  if (x >= p.width || y >= p.height) return;
  const Enlarger enlarge(p, x, y);
  const long long plane = static_cast<long long>(p.canvas_height) * p.canvas_width;
  Quad<float> best = enlarge(p.canvas);
  Quad<Id> ids = {};
  for (int id = 1; id < p.classes; ++id) {
    const Quad<float> values = enlarge(p.canvas + id * plane);
#pragma unroll
    for (int k = 0; k < kPixels; ++k)
      if (values.v[k] > best.v[k]) {
        best.v[k] = values.v[k];
        ids.v[k] = static_cast<Id>(id);
      }
  }
  store(static_cast<Id*>(p.result) + static_cast<long long>(y) * p.width, x, p.width, ids);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) cclseg_normalise(NormaliseParams p) {
  const int x = first_column(), y = row_number(), tile = static_cast<int>(blockIdx.z);
  if (x >= p.width || y >= p.height) return;
  const int top = p.corners[2 * tile], left = p.corners[2 * tile + 1];
  const unsigned char* row = p.image + mirrored(top + y, p.image_height) * p.row_bytes;
  const unsigned char* pixels[kPixels];
#pragma unroll
  for (int k = 0; k < kPixels; ++k)
    pixels[k] = row + mirrored(left + x + k, p.image_width) * p.pixel_bytes;
#pragma unroll 1
  for (int channel = 0; channel < p.channels; ++channel) {
    const Band band = p.bands[channel];
    const long long start =
        ((static_cast<long long>(tile) * p.channels + channel) * p.height + y) * p.width;
    Quad<float> values;
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
      const float value = pixels[k][band.place * p.channel_bytes];
      values.v[k] = __fdiv_rn(__fsub_rn(value, band.mean), band.std);
    }
    if (!p.half) {
      store(static_cast<float*>(p.tiles) + start, x, p.width, values);
      continue;
    }
    Quad<Half> narrow;
#pragma unroll
    for (int k = 0; k < kPixels; ++k) narrow.v[k] = to_half(values.v[k]);
    store(static_cast<Half*>(p.tiles) + start, x, p.width, narrow);
  }
}

// Adds tiles to the canvas in their order. The frame's first tiles find it as it was left by
// another frame, and begin with zero.
extern "C" __global__ void __launch_bounds__(256) cclseg_blend(BlendParams p) {
  const int x = first_column(), y = row_number(), id = static_cast<int>(blockIdx.z);
  if (x >= p.canvas_width || y >= p.canvas_height) return;
  float* row = p.canvas + (static_cast<long long>(id) * p.canvas_height + y) * p.canvas_width;
  Quad<float> sums = {};
  if (p.first != 0) {
#pragma unroll
    for (int k = 0; k < kPixels; ++k)
      if (x + k < p.canvas_width) sums.v[k] = row[x + k];
  }
  for (int i = 0; i < p.count; ++i) {
    const int tile = p.first + i;
    const int in_y = y - p.corners[2 * tile] / p.stride;
    const int in_x = x - p.corners[2 * tile + 1] / p.stride;
    if (in_y < 0 || in_y >= p.height || in_x + kPixels <= 0 || in_x >= p.width) continue;
    const float row_weight = p.row_weights[tile / p.tiles_across * p.height + in_y];
    const float* column_weights = p.column_weights + tile % p.tiles_across * p.width;
    const float* logits =
        p.logits + ((static_cast<long long>(i) * p.classes + id) * p.height + in_y) * p.width;
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
      const int column = in_x + k;
      if (column < 0 || column >= p.width) continue;
      const float weight = __fmul_rn(row_weight, column_weights[column]);
      sums.v[k] = __fadd_rn(sums.v[k], __fmul_rn(logits[column], weight));
    }
  }
  store(row, x, p.canvas_width, sums);
}

extern "C" __global__ void __launch_bounds__(256) cclseg_class_ids_u8(ClassParams p) {
  find_classes<unsigned char>(p);
}

extern "C" __global__ void __launch_bounds__(256) cclseg_class_ids_u16(ClassParams p) {
  find_classes<unsigned short>(p);
}

extern "C" __global__ void __launch_bounds__(256) cclseg_confidence(ClassParams p) {
  const int x = first_column(), y = row_number();
  if (x >= p.width || y >= p.height) return;
  const Enlarger enlarge(p, x, y);
  const long long plane = static_cast<long long>(p.canvas_height) * p.canvas_width;
  Quad<float> best = enlarge(p.canvas), sums = {};
  for (int id = 1; id < p.classes; ++id) {
    const Quad<float> values = enlarge(p.canvas + id * plane);
#pragma unroll
    for (int k = 0; k < kPixels; ++k) best.v[k] = fmaxf(best.v[k], values.v[k]);
  }
  for (int id = 0; id < p.classes; ++id) {
    const Quad<float> values = enlarge(p.canvas + id * plane);
#pragma unroll
    for (int k = 0; k < kPixels; ++k)
      sums.v[k] = __fadd_rn(sums.v[k], expf(__fsub_rn(values.v[k], best.v[k])));
  }
#pragma unroll
  for (int k = 0; k < kPixels; ++k) sums.v[k] = __fdiv_rn(1.0f, sums.v[k]);
  store(static_cast<float*>(p.result) + static_cast<long long>(y) * p.width, x, p.width, sums);
}
