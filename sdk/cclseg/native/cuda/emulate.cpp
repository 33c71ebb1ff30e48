// The kernels as a library for the CPU, for tests and for looking into them with a debugger.

#include "launch.h"

// Returns 0, or 1 when threads of one block did not meet at the same barriers.
extern "C" int cclseg_emulate(int type, const cclseg::Launch* launch,
                              const CorrelationParams* params, const void* a, const void* b,
                              void* out, int backwards) {
  const cclseg::Kernel kernel =
      cclseg::find_kernel(static_cast<cclseg::MapType>(type), launch->radius);
  const bool met = emulation::run(
      {launch->blocks, 1, 1}, {launch->threads_x, launch->threads_y, launch->threads_z},
      static_cast<size_t>(launch->shared_bytes), backwards != 0,
      [=] { kernel(*params, a, b, out); });
  return met ? 0 : 1;
}

extern "C" void cclseg_plan(int type, CorrelationParams* params, int multiprocessors,
                            cclseg::Launch* launch) {
  *launch = cclseg::plan_launch(*params, static_cast<cclseg::MapType>(type), multiprocessors);
}
