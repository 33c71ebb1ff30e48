// The kernel for callers without a host runtime: tests, benchmarks, ctypes. Single-threaded.
#include "correlation.h"

namespace {

void run_in_turn(void*, void (*body)(void*, size_t), size_t count, void* data) {
  for (size_t i = 0; i < count; ++i) body(data, i);
}

}  // namespace

// Names the i-th kernel of this architecture, best first; null behind the last.
extern "C" __attribute__((visibility("default"))) const char* cclseg_kernel_name(int i) {
  size_t count;
  const cclseg::Kernel* all = cclseg::kernels(&count);
  return i >= 0 && static_cast<size_t>(i) < count ? all[i].name : nullptr;
}

extern "C" __attribute__((visibility("default"))) int cclseg_kernel_is_supported(const char* name) {
  return cclseg::find_kernel(name) != nullptr;
}

// sizes: batch, channels, height, width; window: radius, dilation, groups, normalize.
// scales: null for float32 maps, those of a and b for int8. Returns what is wrong, or null.
extern "C" __attribute__((visibility("default"))) const char* cclseg_local_correlation(
    const char* kernel_name, const void* a, const void* b, const int64_t* sizes,
    const int64_t* window, const float* scales, float* out) {
  const cclseg::Kernel* kernel = cclseg::find_kernel(kernel_name);
  if (kernel == nullptr) return "this processor has no such kernel";
  cclseg::Problem problem;
  problem.batch = sizes[0];
  problem.channels = sizes[1];
  problem.height = sizes[2];
  problem.width = sizes[3];
  problem.radius = window[0];
  problem.dilation = window[1];
  problem.groups = window[2];
  problem.normalize = window[3] != 0;
  if (scales != nullptr) {
    problem.type = cclseg::Type::kInt8;
    problem.a_scale = scales[0];
    problem.b_scale = scales[1];
  }
  if (const char* reason = cclseg::misfit(problem)) return reason;
  const bool done = cclseg::correlate(*kernel, problem, a, b, out, {run_in_turn, nullptr});
  return done ? nullptr : "out of memory";
}
