// 64-bit ARM; compiled a second time with the dot-product instructions.
#ifdef __ARM_FEATURE_DOTPROD
#define CCLSEG_ISA cclseg_neon_dot
#else
#define CCLSEG_ISA cclseg_neon
#endif
#include <arm_neon.h>
#include <sys/auxv.h>

#include "kernel.h"
#include "int8_arithmetic.h"

namespace CCLSEG_ISA {
namespace {

using Float = FloatArithmetic<4, 9>;

struct Int8 : FourInt8 {
  static constexpr int kLanes = 4, kMaxLags = 9;
  static constexpr bool kNeedsOffset = false;
  using Floats = Lanes<4>::Floats;
  using Sums = Lanes<4>::Ints;
  using Units = Lanes<4>::Ints;
  static Sums multiply_add(Sums sums, Units a, Units b) {
    const int8x16_t left = (int8x16_t)a, right = (int8x16_t)b;
#ifdef __ARM_FEATURE_DOTPROD
    return (Sums)vdotq_s32((int32x4_t)sums, left, right);
#else
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(left), vget_low_s8(right)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(left, right));
    return sums + (Sums)vpaddq_s32(low, high);
#endif
  }
  static Floats to_float(Sums sums, const int32_t*) { return __builtin_convertvector(sums, Floats); }
};

#ifdef __ARM_FEATURE_DOTPROD
bool is_supported() { return getauxval(AT_HWCAP) & (1ul << 20); }  // HWCAP_ASIMDDP
#else
bool is_supported() { return true; }  // part of the 64-bit architecture
#endif

}  // namespace
}  // namespace CCLSEG_ISA

namespace cclseg {
using namespace CCLSEG_ISA;
#ifdef __ARM_FEATURE_DOTPROD
extern const Kernel kNeonDot = {"neon_dot", is_supported, TileKernel<Float>::run,
                                TileKernel<Int8>::run};
#else
extern const Kernel kNeon = {"neon", is_supported, TileKernel<Float>::run, TileKernel<Int8>::run};
#endif
}  // namespace cclseg
