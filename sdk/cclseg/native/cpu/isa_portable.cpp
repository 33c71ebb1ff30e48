// For any processor: vectors of four that the compiler maps to what is there.
#define CCLSEG_ISA cclseg_portable
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "kernel.h"
#include "int8_arithmetic.h"

namespace CCLSEG_ISA {
namespace {

using Float = FloatArithmetic<4, 5>;

struct Int8 : TwoInt16 {
  static constexpr int kLanes = 4, kMaxLags = 5;
  static constexpr bool kNeedsOffset = false;
  using Floats = Lanes<4>::Floats;
  using Sums = Lanes<4>::Ints;
  using Units = Lanes<4>::Ints;
  static Sums multiply_add(Sums sums, Units a, Units b) {
#ifdef __SSE2__
    return sums + (Sums)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    const Units low = ((a << 16) >> 16) * ((b << 16) >> 16);
    return sums + low + (a >> 16) * (b >> 16);
#endif
  }
  static Floats to_float(Sums sums, const int32_t*) { return __builtin_convertvector(sums, Floats); }
};

bool always() { return true; }

}  // namespace
}  // namespace CCLSEG_ISA

namespace cclseg {
using namespace CCLSEG_ISA;
extern const Kernel kPortable = {"portable", always, TileKernel<Float>::run, TileKernel<Int8>::run};
}  // namespace cclseg
