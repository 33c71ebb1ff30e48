// What happens to a frame outside the network, on a CPU. cclseg/preprocess.py, tiling.py and
// postprocess.py define the numbers; every kernel gives the same ones bit for bit.
#pragma once

#include <cstdint>

namespace cclseg {

// A window of an interleaved or planar uint8 image, and how its values become a network's input.
// Steps are bytes and may be negative. Read by ctypes: see frame_kernels.py.
struct Window {
  const uint8_t* image;
  int64_t height, width;                        // of the image
  int64_t row_step, column_step, channel_step;  // of the image
  int64_t bands;
  const int64_t* places;  // of each band on the image's last axis
  const float* mean;
  const float* deviation;
  int64_t top, left, rows, columns;
};

// Where the logits of one tile stand in those of the frame, and how much they count.
struct Share {
  int64_t classes, canvas_rows, canvas_columns;
  int64_t top, left, rows, columns;
  const float* row_weights;
  const float* column_weights;
};

// Logits (classes, rows, columns), contiguous, and the frame that they are enlarged to.
struct Enlargement {
  int64_t classes, rows, columns, stride;
  int64_t height, width;  // at most rows * stride, columns * stride
};

struct FrameKernel {
  const char* name;
  bool (*is_supported)();
  // out: (bands, rows, columns) contiguous.
  void (*normalise)(const Window&, float* out);
  // canvas += logits * weights; logits: (classes, rows, columns) contiguous.
  void (*add)(const Share&, const float* logits, float* canvas);
  // mask: (height, width) contiguous, uint8_t, beyond 255 classes uint16_t. False: out of memory.
  bool (*class_ids)(const Enlargement&, const float* logits, void* mask);
};

}  // namespace cclseg
