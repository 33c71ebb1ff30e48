// A libcuda.so.1 for tests: one device whose memory is the CPU's, and whose launches of our kernels
// run emulated. Who owns context, memory and stream is the caller's business, as with a real driver.
// Misuse is an error as on a device: memory needs a current context, and copies stay inside one
// allocation. emulated_live() counts what was not given back.

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "launch.h"

namespace {

constexpr int kInvalidValue = 1, kInvalidDevice = 101, kInvalidContext = 201, kInvalidHandle = 400,
              kNotFound = 500, kIllegalAddress = 700;
constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76;  // CUdevice_attribute

struct Function {
  cclseg::Kernel kernel;
};

int the_context;
thread_local std::vector<void*> contexts;  // the last one is current
std::map<std::uintptr_t, size_t> allocations;
std::set<void*> streams;
int retained = 0;
void* last_stream = nullptr;

bool has_context() { return !contexts.empty() && contexts.back() != nullptr; }

int copy(void* to, const void* from, size_t bytes, const void* on_device) {
  if (!has_context()) return kInvalidContext;
  const auto first = reinterpret_cast<std::uintptr_t>(on_device);
  const auto behind = allocations.upper_bound(first);
  if (behind == allocations.begin()) return kIllegalAddress;
  const auto [start, size] = *std::prev(behind);
  if (first + bytes > start + size) return kIllegalAddress;
  return std::memcpy(to, from, bytes), 0;
}

bool is_stream(void* stream) { return stream == nullptr || streams.count(stream) > 0; }

}  // namespace

extern "C" {

int cuInit(unsigned int) { return 0; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }
int cuDeviceGet(int* device, int index) { return *device = index, index == 0 ? 0 : kInvalidDevice; }
int cuDeviceGetName(char* name, int bytes, int) { return std::snprintf(name, bytes, "Orin"), 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = size_t{8} << 30, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == kMultiprocessors ? 2 : attribute == kMajor ? 8 : attribute == kMinor ? 7 : 0;
  return 0;
}

int cuDevicePrimaryCtxRetain(void** context, int) {
  ++retained;
  return *context = &the_context, 0;
}
int cuDevicePrimaryCtxRelease_v2(int) { return --retained, 0; }
int cuCtxSetCurrent(void* context) {
  if (!contexts.empty()) contexts.pop_back();
  return contexts.push_back(context), 0;
}
int cuCtxPushCurrent_v2(void* context) {
  if (context != &the_context) return kInvalidContext;
  return contexts.push_back(context), 0;
}
int cuCtxPopCurrent_v2(void** context) {
  if (contexts.empty()) return kInvalidContext;
  *context = contexts.back();
  return contexts.pop_back(), 0;
}
int cuCtxGetDevice(int* device) { return *device = 0, has_context() ? 0 : kInvalidContext; }

int cuMemAlloc_v2(void** memory, size_t bytes) {
  if (!has_context()) return kInvalidContext;
  if (bytes == 0) return kInvalidValue;
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  allocations[reinterpret_cast<std::uintptr_t>(*memory)] = bytes;
  return 0;
}
int cuMemFree_v2(void* memory) {
  if (allocations.erase(reinterpret_cast<std::uintptr_t>(memory)) == 0) return kInvalidValue;
  return std::free(memory), 0;
}
int cuMemcpyHtoD_v2(void* to, const void* from, size_t bytes) { return copy(to, from, bytes, to); }
int cuMemcpyDtoH_v2(void* to, const void* from, size_t bytes) { return copy(to, from, bytes, from); }
int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  return is_stream(stream) ? copy(to, from, bytes, to) : kInvalidHandle;
}
int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  return is_stream(stream) ? copy(to, from, bytes, from) : kInvalidHandle;
}

int cuStreamCreate(void** stream, unsigned int) {
  if (!has_context()) return kInvalidContext;
  return streams.insert(*stream = new int), 0;
}
int cuStreamSynchronize(void* stream) { return is_stream(stream) ? 0 : kInvalidHandle; }
int cuStreamDestroy_v2(void* stream) {
  if (streams.erase(stream) == 0) return kInvalidHandle;
  return delete static_cast<int*>(stream), 0;
}

int cuModuleLoadData(void** module, const void* image) {
  *module = &the_context;
  return std::memcmp(image, "\x7f" "ELF", 4) == 0 ? 0 : kInvalidValue;
}
int cuModuleUnload(void*) { return 0; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  const char* types[] = {"f32", "f16", "s8"};
  for (int type = 0; type < 3; ++type)
    for (int radius = 0; radius < 5; ++radius)
      if (name == "cclseg_correlation_" + (types[type] + ("_r" + std::to_string(radius)))) {
        *function = new Function{cclseg::find_kernel(static_cast<cclseg::MapType>(type), radius)};
        return 0;
      }
  return kNotFound;
}
int cuLaunchKernel(void* function, unsigned int blocks, unsigned int, unsigned int, unsigned int x,
                   unsigned int y, unsigned int z, unsigned int shared_bytes, void* stream,
                   void** arguments, void**) {
  if (!has_context()) return kInvalidContext;
  last_stream = stream;
  const auto kernel = static_cast<Function*>(function)->kernel;
  const auto params = *static_cast<CorrelationParams*>(arguments[0]);
  const auto pointer = [=](int i) { return *static_cast<void**>(arguments[i]); };
  const EmulatedIndex threads = {static_cast<int>(x), static_cast<int>(y), static_cast<int>(z)};
  const bool met = emulation::run(static_cast<int>(blocks), threads, shared_bytes, false, [=] {
    kernel(params, pointer(1), pointer(2), pointer(3));
  });
  return met ? 0 : kInvalidValue;
}

int cuGetErrorString(int status, const char** text) {
  *text = status == kInvalidContext ? "invalid device context"
          : status == kNotFound     ? "named symbol not found"
          : status == kInvalidHandle ? "invalid resource handle"
          : status == kInvalidDevice ? "invalid device ordinal"
          : status == kIllegalAddress ? "an illegal memory access was encountered"
                                    : "invalid argument";
  return 0;
}

// How libraries look functions up: by the plain name, with the newest version behind it.
int cuGetProcAddress_v2(const char* name, void** function, int, unsigned long long, int* found) {
  void* self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  *function = dlsym(self, (std::string(name) + "_v2").c_str());
  if (*function == nullptr) *function = dlsym(self, name);
  if (found != nullptr) *found = *function == nullptr ? 1 : 0;
  return *function == nullptr ? kNotFound : 0;
}

void* emulated_last_stream() { return last_stream; }
int emulated_is_stream(void* stream) { return stream != nullptr && is_stream(stream); }
int emulated_live() {
  return static_cast<int>(allocations.size() + streams.size() + contexts.size()) + retained;
}

}  // extern "C"
