// An NVIDIA driver without a device: memory is the host's, and misuse is an error as on a device.
//
// It has the functions that cclseg calls, with the prototypes of CUDA's driver interface, so that a
// wrong argument type is seen. Memory calls fail without a current context; copies must stay inside
// one allocation. The number of live allocations, streams and contexts is told by emulated_live().
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

using Status = int;
using Device = int;
using Address = unsigned long long;
using Context = void*;
using Stream = void*;

namespace {
constexpr Status kSuccess = 0, kInvalidValue = 1, kInvalidContext = 201, kIllegalAddress = 700;
int the_context, the_stream;
int depth = 0, retained = 0, streams = 0;
std::map<Address, std::size_t> allocations;

bool inside(Address address, std::size_t bytes) {
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return false;
  auto const& [start, size] = *std::prev(after);
  return address + bytes <= start + size;
}
}  // namespace

extern "C" {
Status cuInit(unsigned flags) { return flags == 0 ? kSuccess : kInvalidValue; }
Status cuDriverGetVersion(int* version) { *version = 12060; return kSuccess; }
Status cuDeviceGetCount(int* count) { *count = 1; return kSuccess; }
Status cuDeviceGet(Device* device, int index) { *device = index; return index ? 101 : kSuccess; }
Status cuDeviceGetName(char* name, int bytes, Device) {
  std::strncpy(name, "Orin", static_cast<std::size_t>(bytes));
  return kSuccess;
}
Status cuDeviceTotalMem_v2(std::size_t* bytes, Device) { *bytes = std::size_t{8} << 30; return kSuccess; }
Status cuDeviceGetAttribute(int* value, int attribute, Device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 : 0;
  return kSuccess;
}
Status cuDevicePrimaryCtxRetain(Context* context, Device) {
  *context = &the_context;
  ++retained;
  return kSuccess;
}
Status cuDevicePrimaryCtxRelease_v2(Device) { --retained; return kSuccess; }
Status cuCtxPushCurrent_v2(Context context) {
  if (context != &the_context) return kInvalidContext;
  ++depth;
  return kSuccess;
}
Status cuCtxPopCurrent_v2(Context* context) {
  *context = &the_context;
  return depth-- > 0 ? kSuccess : kInvalidContext;
}
Status cuStreamCreate(Stream* stream, unsigned flags) {
  if (!depth) return kInvalidContext;
  *stream = &the_stream;
  ++streams;
  return flags <= 1 ? kSuccess : kInvalidValue;
}
Status cuStreamDestroy_v2(Stream stream) {
  --streams;
  return stream == &the_stream ? kSuccess : kInvalidValue;
}
Status cuStreamSynchronize(Stream stream) { return stream == &the_stream ? kSuccess : kInvalidValue; }
Status cuMemAlloc_v2(Address* address, std::size_t bytes) {
  if (!depth) return kInvalidContext;
  if (!bytes) return kInvalidValue;
  *address = reinterpret_cast<Address>(std::malloc(bytes));
  allocations[*address] = bytes;
  return kSuccess;
}
Status cuMemFree_v2(Address address) {
  if (!allocations.erase(address)) return kIllegalAddress;
  std::free(reinterpret_cast<void*>(address));
  return kSuccess;
}
Status cuMemcpyHtoDAsync_v2(Address target, void const* source, std::size_t bytes, Stream stream) {
  if (!depth || stream != &the_stream) return kInvalidContext;
  if (!inside(target, bytes)) return kIllegalAddress;
  std::memcpy(reinterpret_cast<void*>(target), source, bytes);
  return kSuccess;
}
Status cuMemcpyDtoHAsync_v2(void* target, Address source, std::size_t bytes, Stream stream) {
  if (!depth || stream != &the_stream) return kInvalidContext;
  if (!inside(source, bytes)) return kIllegalAddress;
  std::memcpy(target, reinterpret_cast<void const*>(source), bytes);
  return kSuccess;
}
Status cuGetErrorString(Status status, char const** text) {
  *text = status == kInvalidContext ? "invalid device context"
          : status == kIllegalAddress ? "an illegal memory access was encountered" : "invalid argument";
  return kSuccess;
}
int emulated_live() { return static_cast<int>(allocations.size()) + streams + retained + depth; }
int emulated_stream_is(std::uint64_t handle) { return handle == reinterpret_cast<Address>(&the_stream); }
}
