// Chooses the frame kernel for this processor, and hands all of them out to ctypes.
#include "frame.h"

#include <cstddef>
#include <cstring>

#define CCLSEG_API extern "C" __attribute__((visibility("default")))

namespace cclseg {

#if defined(__x86_64__)
extern const FrameKernel kFrameAvx512, kFrameAvx2;
#endif
extern const FrameKernel kFrameBase;

namespace {

const FrameKernel* const kAll[] = {
#if defined(__x86_64__)
    &kFrameAvx512, &kFrameAvx2,
#endif
    &kFrameBase};

}  // namespace
}  // namespace cclseg

// Names the i-th kernel of this architecture, best first; null behind the last.
CCLSEG_API const char* cclseg_frame_kernel_name(int i) {
  const int count = sizeof cclseg::kAll / sizeof cclseg::kAll[0];
  return i >= 0 && i < count ? cclseg::kAll[i]->name : nullptr;
}

// Returns the kernel of a name; null where it is unknown or this processor cannot run it.
CCLSEG_API const cclseg::FrameKernel* cclseg_frame_kernel(const char* name) {
  for (const cclseg::FrameKernel* kernel : cclseg::kAll) {
    if (strcmp(kernel->name, name) == 0) return kernel->is_supported() ? kernel : nullptr;
  }
  return nullptr;
}

CCLSEG_API void cclseg_normalise(const cclseg::FrameKernel* kernel, const cclseg::Window* window,
                                 float* out) {
  kernel->normalise(*window, out);
}

CCLSEG_API void cclseg_add_tile(const cclseg::FrameKernel* kernel, const cclseg::Share* share,
                                const float* logits, float* canvas) {
  kernel->add(*share, logits, canvas);
}

// Returns 0 where there was no memory.
CCLSEG_API int cclseg_class_ids(const cclseg::FrameKernel* kernel,
                                const cclseg::Enlargement* enlargement, const float* logits,
                                void* mask) {
  return kernel->class_ids(*enlargement, logits, mask);
}
