// x86-64 with AVX-512 F, BW, DQ and VL; compiled a second time with VNNI.
#ifdef __AVX512VNNI__
#define CCLSEG_ISA cclseg_avx512_vnni
#else
#define CCLSEG_ISA cclseg_avx512
#endif
#include <immintrin.h>

#include "kernel.h"
#include "int8_arithmetic.h"

namespace CCLSEG_ISA {
namespace {

using Float = FloatArithmetic<16, 9>;

struct Int8Lanes {
  static constexpr int kLanes = 16, kMaxLags = 9;
  using Floats = Lanes<16>::Floats;
  using Sums = Lanes<16>::Ints;
  using Units = Lanes<16>::Ints;
};

#ifdef __AVX512VNNI__
// The instruction multiplies unsigned by signed bytes: a + 128 takes the place of a, and 128 times
// the sum of b over the channels is taken off at the end.
struct Int8 : FourInt8, Int8Lanes {
  static constexpr bool kNeedsOffset = true;
  static Sums multiply_add(Sums sums, Units a, Units b) {
    return (Sums)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
  }
  static Floats to_float(Sums sums, const int32_t* offsets) {
    return __builtin_convertvector(sums - *reinterpret_cast<const Sums*>(offsets), Floats);
  }
  static int32_t pack_left(const int8_t* const* channels, int count, int64_t x) {
    return pack(channels, count, x) ^ static_cast<int32_t>(0x80808080u);
  }
};
#else
struct Int8 : TwoInt16, Int8Lanes {
  static constexpr bool kNeedsOffset = false;
  static Sums multiply_add(Sums sums, Units a, Units b) {
    return sums + (Sums)_mm512_madd_epi16((__m512i)a, (__m512i)b);
  }
  static Floats to_float(Sums sums, const int32_t*) { return __builtin_convertvector(sums, Floats); }
};
#endif

bool is_supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
#ifdef __AVX512VNNI__
         && __builtin_cpu_supports("avx512vnni")
#endif
      ;
}

}  // namespace
}  // namespace CCLSEG_ISA

namespace cclseg {
using namespace CCLSEG_ISA;
#ifdef __AVX512VNNI__
extern const Kernel kAvx512Vnni = {"avx512_vnni", is_supported, TileKernel<Float>::run,
                                   TileKernel<Int8>::run};
#else
extern const Kernel kAvx512 = {"avx512", is_supported, TileKernel<Float>::run,
                               TileKernel<Int8>::run};
#endif
}  // namespace cclseg
