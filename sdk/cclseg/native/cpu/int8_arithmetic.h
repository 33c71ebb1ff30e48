// Packing of int8 channels for the arithmetics that multiply them; see kernel.h.

namespace CCLSEG_ISA {
namespace {

// Four int8 of neighbouring channels in 4 bytes. Missing channels are 0 in b, so what stands in a
// does not matter there.
struct FourInt8 {
  static constexpr int kChannelsPerUnit = 4;
  using Source = int8_t;
  static int32_t pack(const int8_t* const* channels, int count, int64_t x) {
    uint32_t unit = 0;
    for (int c = 0; c < count; ++c) {
      unit |= static_cast<uint32_t>(static_cast<uint8_t>(channels[c][x])) << (8 * c);
    }
    return static_cast<int32_t>(unit);
  }
  static int32_t pack_left(const int8_t* const* channels, int count, int64_t x) {
    return pack(channels, count, x);
  }
};

// Two int8 of neighbouring channels, widened to int16.
struct TwoInt16 {
  static constexpr int kChannelsPerUnit = 2;
  using Source = int8_t;
  static int32_t pack(const int8_t* const* channels, int count, int64_t x) {
    uint32_t unit = static_cast<uint16_t>(channels[0][x]);
    if (count == 2) unit |= static_cast<uint32_t>(static_cast<uint16_t>(channels[1][x])) << 16;
    return static_cast<int32_t>(unit);
  }
  static int32_t pack_left(const int8_t* const* channels, int count, int64_t x) {
    return pack(channels, count, x);
  }
};

}  // namespace
}  // namespace CCLSEG_ISA
