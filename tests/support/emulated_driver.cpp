// A libcuda.so.1 for tests: one device whose memory is the CPU's, and whose launches of our kernels
// run emulated. Who owns context, memory and stream is the caller's business, as with a real driver.

#include <dlfcn.h>

#include <cstdio>
#include <string>

#include "launch.h"

namespace {

constexpr int kInvalidValue = 1, kInvalidContext = 201, kNotFound = 500;
constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76;  // CUdevice_attribute

struct Function {
  cclseg::Kernel kernel;
};

int the_context;
thread_local void* current = nullptr;
void* last_stream = nullptr;

}  // namespace

extern "C" {

int cuInit(unsigned int) { return 0; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }
int cuDeviceGet(int* device, int) { return *device = 0, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == kMultiprocessors ? 2 : attribute == kMajor ? 8 : attribute == kMinor ? 7 : 0;
  return 0;
}

int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &the_context, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxSetCurrent(void* context) { return current = context, 0; }
int cuCtxGetDevice(int* device) { return *device = 0, current == nullptr ? kInvalidContext : 0; }

int cuMemAlloc_v2(void** memory, size_t bytes) {
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return current == nullptr ? kInvalidContext : 0;
}
int cuMemFree_v2(void* memory) { return std::free(memory), 0; }
int cuMemcpyHtoD_v2(void* to, const void* from, size_t bytes) {
  return std::memcpy(to, from, bytes), 0;
}
int cuMemcpyDtoH_v2(void* to, const void* from, size_t bytes) {
  return std::memcpy(to, from, bytes), 0;
}

int cuStreamCreate(void** stream, unsigned int) { return *stream = new int, 0; }
int cuStreamSynchronize(void*) { return 0; }
int cuStreamDestroy_v2(void* stream) { return delete static_cast<int*>(stream), 0; }

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
  if (current == nullptr) return kInvalidContext;
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

}  // extern "C"
