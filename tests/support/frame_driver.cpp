// Runs one frame kernel on what stands in standard input; for processors and sanitizers that a
// Python process cannot have. Without arguments it names the kernels that this processor runs.
//
// classes:   int64 classes, rows, columns, stride, height, width; logits -> mask
// normalise: int64 height, width, channels, bands, top, left, rows, columns; int64 places; float
//            means, deviations; image -> network input
// blend:     int64 classes, canvas rows and columns, top, left, rows, columns; float weights of
//            rows and of columns; logits; canvas -> canvas
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "frame.h"

extern "C" {
const char* cclseg_frame_kernel_name(int i);
const cclseg::FrameKernel* cclseg_frame_kernel(const char* name);
}

template <class T>
std::vector<T> read(size_t count) {
  std::vector<T> values(count);
  if (fread(values.data(), sizeof(T), count, stdin) != count) fputs("input is cut off\n", stderr);
  return values;
}

template <class T>
int write(const std::vector<T>& values) {
  return fwrite(values.data(), sizeof(T), values.size(), stdout) == values.size() ? 0 : 1;
}

int classes(const cclseg::FrameKernel& kernel) {
  const std::vector<int64_t> h = read<int64_t>(6);
  const cclseg::Enlargement enlargement = {h[0], h[1], h[2], h[3], h[4], h[5]};
  const std::vector<float> logits = read<float>(h[0] * h[1] * h[2]);
  std::vector<uint8_t> mask(h[4] * h[5] * (h[0] > 255 ? 2 : 1));
  return kernel.class_ids(enlargement, logits.data(), mask.data()) ? write(mask) : 1;
}

int normalise(const cclseg::FrameKernel& kernel) {
  const std::vector<int64_t> h = read<int64_t>(8);
  const std::vector<int64_t> places = read<int64_t>(h[3]);
  const std::vector<float> means = read<float>(h[3]), deviations = read<float>(h[3]);
  const std::vector<uint8_t> image = read<uint8_t>(h[0] * h[1] * h[2]);
  const cclseg::Window window = {
      image.data(),  h[0],         h[1],              h[1] * h[2], h[2], 1,    h[3],
      places.data(), means.data(), deviations.data(), h[4],        h[5], h[6], h[7]};
  std::vector<float> out(h[3] * h[6] * h[7]);
  kernel.normalise(window, out.data());
  return write(out);
}

int blend(const cclseg::FrameKernel& kernel) {
  const std::vector<int64_t> h = read<int64_t>(7);
  const std::vector<float> rows = read<float>(h[5]), columns = read<float>(h[6]);
  const std::vector<float> logits = read<float>(h[0] * h[5] * h[6]);
  std::vector<float> canvas = read<float>(h[0] * h[1] * h[2]);
  kernel.add({h[0], h[1], h[2], h[3], h[4], h[5], h[6], rows.data(), columns.data()},
             logits.data(), canvas.data());
  return write(canvas);
}

int main(int argc, char** argv) {
  if (argc < 3) {
    for (int i = 0; const char* name = cclseg_frame_kernel_name(i); ++i) {
      if (cclseg_frame_kernel(name) != nullptr) puts(name);
    }
    return 0;
  }
  const cclseg::FrameKernel* kernel = cclseg_frame_kernel(argv[1]);
  if (kernel == nullptr) return 2;
  if (strcmp(argv[2], "classes") == 0) return classes(*kernel);
  if (strcmp(argv[2], "normalise") == 0) return normalise(*kernel);
  return blend(*kernel);
}
