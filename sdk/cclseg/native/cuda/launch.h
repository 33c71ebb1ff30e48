// Chooses the kernel, the blocks and the shared memory for a correlation, and launches it: on a
// GPU, or emulated where the file is compiled as plain C++. correlation_cuda.py plans the same
// launches for callers without a C++ compiler; a test compares the two.

#pragma once

#include <algorithm>
#include <climits>

#include "local_correlation.cu"

#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#else
using cudaStream_t = struct CUstream_st*;
#endif

namespace cclseg {

enum class MapType { kF32 = 0, kF16 = 1, kS8 = 2 };

using Kernel = void (*)(CorrelationParams, const void*, const void*, void*);

struct Launch {
  int radius;  // of the kernel
  int threads_x, threads_y, threads_z;
  int blocks;  // 0: the maps are too large for one launch
  int shared_bytes;
};

inline Kernel find_kernel(MapType type, int kernel_radius) {
  static constexpr Kernel kKernels[3][5] = {
      {cclseg_correlation_f32_r0, cclseg_correlation_f32_r1, cclseg_correlation_f32_r2,
       cclseg_correlation_f32_r3, cclseg_correlation_f32_r4},
      {cclseg_correlation_f16_r0, cclseg_correlation_f16_r1, cclseg_correlation_f16_r2,
       cclseg_correlation_f16_r3, cclseg_correlation_f16_r4},
      {cclseg_correlation_s8_r0, cclseg_correlation_s8_r1, cclseg_correlation_s8_r2,
       cclseg_correlation_s8_r3, cclseg_correlation_s8_r4},
  };
  return kKernels[static_cast<int>(type)][kernel_radius];
}

// Plans a launch and sets params.stage_steps.
//
// Blocks are as large as the kernel allows, because a block's threads share what it has staged, and
// smaller where the map is too small to keep all multiprocessors busy.
inline Launch plan_launch(CorrelationParams& params, MapType type, int multiprocessors) {
  constexpr int kStageBytes = 24 * 1024, kMaxSteps = 8, kRowsOf[5] = {16, 8, 4, 4, 3};
  const auto divide_up = [](long long a, long long b) { return (a + b - 1) / b; };
  const int radius = std::min(params.radius, 4);
  const int lags = 2 * params.radius + 1, kernel_lags = 2 * radius + 1;
  const long long columns = divide_up(params.width, params.dilation);
  const long long lattice_rows = divide_up(params.height, params.dilation);
  const long long areas = divide_up(columns, kTileColumns) * params.groups * params.batch *
                          params.dilation * params.dilation * divide_up(lags, kernel_lags);
  int rows = kRowsOf[radius], high = kernel_lags;
  const auto count_blocks = [&] {
    return areas * divide_up(lattice_rows, rows) * divide_up(lags, high);
  };
  while (count_blocks() < 2LL * multiprocessors && rows * high > 8) {
    if (high > 2)
      high = (high + 1) / 2;
    else
      rows = (rows + 1) / 2;
  }
  const int depth = params.channels / params.groups;
  const int all_steps = type == MapType::kS8 ? static_cast<int>(divide_up(depth, 4)) : depth;
  const int step_bytes = 16 * (rows * kRowA + (rows + high - 1) * kRowB);
  const int square_bytes = params.normalize ? step_bytes : 0;
  int steps = kMaxSteps;
  while (steps > 1 && steps * step_bytes + square_bytes > kStageBytes) steps /= 2;
  params.stage_steps = std::min(steps, all_steps);
  const long long blocks = count_blocks();
  return {radius, kTileColumns / kPixels, rows, high,
          blocks > INT_MAX ? 0 : static_cast<int>(blocks),
          params.stage_steps * step_bytes + square_bytes};
}

inline int count_multiprocessors() {
#if defined(__CUDACC__)
  int device = 0, count = 0;
  if (cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) == cudaSuccess)
    return count;
  cudaGetLastError();  // no device: the caller only plans
#endif
  return 2;
}

// Returns what went wrong, or null. Does not wait for the result.
inline const char* run(const CorrelationParams& params, MapType type, const Launch& launch,
                       const void* a, const void* b, void* out, cudaStream_t stream) {
  const Kernel kernel = find_kernel(type, launch.radius);
#if defined(__CUDACC__)
  kernel<<<launch.blocks, dim3(launch.threads_x, launch.threads_y, launch.threads_z),
           launch.shared_bytes, stream>>>(params, a, b, out);
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
#else
  static_cast<void>(stream);
  const bool met = emulation::run({launch.blocks, 1, 1},
                                  {launch.threads_x, launch.threads_y, launch.threads_z},
                                  static_cast<size_t>(launch.shared_bytes), false,
                                  [=] { kernel(params, a, b, out); });
  return met ? nullptr : "threads of a block did not meet at the same barriers";
#endif
}

}  // namespace cclseg
