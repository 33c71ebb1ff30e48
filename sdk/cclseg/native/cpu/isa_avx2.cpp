// x86-64 with AVX2 and FMA.
#define CCLSEG_ISA cclseg_avx2
#include <immintrin.h>

#include "kernel.h"
#include "int8_arithmetic.h"

namespace CCLSEG_ISA {
namespace {

using Float = FloatArithmetic<8, 6>;

struct Int8 : TwoInt16 {
  static constexpr int kLanes = 8, kMaxLags = 6;
  static constexpr bool kNeedsOffset = false;
  using Floats = Lanes<8>::Floats;
  using Sums = Lanes<8>::Ints;
  using Units = Lanes<8>::Ints;
  static Sums multiply_add(Sums sums, Units a, Units b) {
    return sums + (Sums)_mm256_madd_epi16((__m256i)a, (__m256i)b);
  }
  static Floats to_float(Sums sums, const int32_t*) { return __builtin_convertvector(sums, Floats); }
};

bool is_supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace
}  // namespace CCLSEG_ISA

namespace cclseg {
using namespace CCLSEG_ISA;
extern const Kernel kAvx2 = {"avx2", is_supported, TileKernel<Float>::run, TileKernel<Int8>::run};
}  // namespace cclseg
