// A libcuda.so.1 for tests: one device whose memory is the CPU's, and whose launches of our kernels
// run emulated. Who owns context, memory and stream is the caller's business, as with a real driver.
// Misuse is an error as on a device: memory needs a current context, and copies stay inside one
// allocation. emulated_live() counts what was not given back.
//
// Streams are as lazy as a device may ever be: what is queued runs when somebody waits for it, and
// one stream runs while the others stand still. A result that is read without a wait, or pinned
// memory that is written again too soon, therefore gives other numbers here every time.

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "launch.h"

using ImageKernel = void (*)(const void* params);
extern "C" ImageKernel cclseg_find_image_kernel(const char* name, size_t* params_bytes);

namespace {

constexpr int kInvalidValue = 1, kInvalidDevice = 101, kInvalidContext = 201, kInvalidHandle = 400,
              kNotFound = 500, kNotReady = 600, kIllegalAddress = 700, kCaptureUnsupported = 900,
              kCaptureInvalidated = 901;
constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76;  // CUdevice_attribute

struct Function {
  cclseg::Kernel correlation;
  ImageKernel image;
  size_t params_bytes;
};

using Work = std::function<void()>;

struct Stream;
struct Event {
  Stream* stream = nullptr;  // where it was recorded last
  long recorded = 0, reached = 0;
  float moment_ms = 0;
};
struct Graph {
  std::vector<Work> work;
};
struct Stream {
  std::deque<Work> work;
  std::unique_ptr<Graph> capture;
  bool invalid_capture = false;
};

int the_context;
thread_local std::vector<void*> contexts;  // the last one is current
std::recursive_mutex one_at_a_time;
std::map<std::uintptr_t, size_t> allocations, pinned;
std::map<void*, std::unique_ptr<Stream>> streams;
std::map<void*, std::unique_ptr<Event>> events;
std::map<void*, std::unique_ptr<Graph>> graphs;
Stream default_stream;
int retained = 0, graph_launches = 0, waits = 0, allocated = 0;
long works_done = 0;
void* last_stream = nullptr;
bool captures_allowed = true;

#define LOCKED std::lock_guard<std::recursive_mutex> lock(one_at_a_time)

bool has_context() { return !contexts.empty() && contexts.back() != nullptr; }

bool is_inside(const std::map<std::uintptr_t, size_t>& memory, const void* start, size_t bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(start);
  const auto behind = memory.upper_bound(first);
  if (behind == memory.begin()) return false;
  const auto [begin, size] = *std::prev(behind);
  return first + bytes <= begin + size;
}

Stream* find_stream(void* handle) {
  // 1 and 2 are CU_STREAM_LEGACY and CU_STREAM_PER_THREAD
  if (reinterpret_cast<std::uintptr_t>(handle) <= 2) return &default_stream;
  const auto found = streams.find(handle);
  return found == streams.end() ? nullptr : found->second.get();
}

void step(Stream& stream) {
  const Work work = std::move(stream.work.front());
  stream.work.pop_front();
  work();
  ++works_done;
}

void drain(Stream& stream) {
  while (!stream.work.empty()) step(stream);
}

void drain_all() {
  drain(default_stream);
  for (auto& entry : streams) drain(*entry.second);
}

int enqueue(void* handle, Work work) {
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return kInvalidHandle;
  if (stream->capture != nullptr)
    stream->capture->work.push_back(std::move(work));
  else
    stream->work.push_back(std::move(work));
  return 0;
}

// Pageable memory is read at once; a copy to it is done at once, behind what is queued before.
int copy_async(void* to, const void* from, size_t bytes, const void* device, const void* host,
               void* handle) {
  if (!has_context()) return kInvalidContext;
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return kInvalidHandle;
  if (!is_inside(allocations, device, bytes)) return kIllegalAddress;
  if (is_inside(pinned, host, bytes))
    return enqueue(handle, [=] { std::memcpy(to, from, bytes); });
  if (stream->capture != nullptr) return stream->invalid_capture = true, kCaptureUnsupported;
  if (host == from) {
    const auto bytes_then = std::make_shared<std::string>(static_cast<const char*>(from), bytes);
    return enqueue(handle, [=] { std::memcpy(to, bytes_then->data(), bytes); });
  }
  drain(*stream);
  return std::memcpy(to, from, bytes), 0;
}

int copy_now(void* to, const void* from, size_t bytes, const void* device) {
  if (!has_context()) return kInvalidContext;
  if (!is_inside(allocations, device, bytes)) return kIllegalAddress;
  drain_all();
  return std::memcpy(to, from, bytes), 0;
}

// A launch as it waits in a stream: with its own copy of the arguments.
int launch(const Function& function, EmulatedIndex grid, EmulatedIndex threads, size_t shared_bytes,
           void* stream, void** arguments) {
  if (function.image != nullptr) {
    using Params = std::vector<char>;
    const auto* first = static_cast<const char*>(arguments[0]);
    const auto params = std::make_shared<Params>(first, first + function.params_bytes);
    const ImageKernel kernel = function.image;
    return enqueue(stream, [=] {
      emulation::run(grid, threads, shared_bytes, false, [=] { kernel(params->data()); });
    });
  }
  const auto params = *static_cast<CorrelationParams*>(arguments[0]);
  void* a = *static_cast<void**>(arguments[1]);
  void* b = *static_cast<void**>(arguments[2]);
  void* out = *static_cast<void**>(arguments[3]);
  const cclseg::Kernel kernel = function.correlation;
  return enqueue(stream, [=] {
    emulation::run(grid, threads, shared_bytes, false, [=] { kernel(params, a, b, out); });
  });
}

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

int cuDeviceComputeCapability(int* major, int* minor, int) { return *major = 8, *minor = 7, 0; }

int cuDevicePrimaryCtxRetain(void** context, int) {
  LOCKED;
  ++retained;
  return *context = &the_context, 0;
}
int cuDevicePrimaryCtxRelease_v2(int) {
  LOCKED;
  return --retained, 0;
}
int cuCtxGetCurrent(void** context) {
  return *context = contexts.empty() ? nullptr : contexts.back(), 0;
}
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
int cuCtxSynchronize() {
  LOCKED;
  return ++waits, drain_all(), 0;
}

int cuMemAlloc_v2(void** memory, size_t bytes) {
  LOCKED;
  if (!has_context()) return kInvalidContext;
  if (bytes == 0) return kInvalidValue;
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*memory, 0xff, bytes);
  ++allocated;
  allocations[reinterpret_cast<std::uintptr_t>(*memory)] = bytes;
  return 0;
}
int cuMemFree_v2(void* memory) {
  LOCKED;
  drain_all();
  if (allocations.erase(reinterpret_cast<std::uintptr_t>(memory)) == 0) return kInvalidValue;
  return std::free(memory), 0;
}
int cuMemHostAlloc(void** memory, size_t bytes, unsigned int) {
  LOCKED;
  if (!has_context()) return kInvalidContext;
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  pinned[reinterpret_cast<std::uintptr_t>(*memory)] = bytes;
  return 0;
}
int cuMemFreeHost(void* memory) {
  LOCKED;
  drain_all();
  if (pinned.erase(reinterpret_cast<std::uintptr_t>(memory)) == 0) return kInvalidValue;
  return std::free(memory), 0;
}
int cuMemcpyHtoD_v2(void* to, const void* from, size_t bytes) {
  LOCKED;
  return copy_now(to, from, bytes, to);
}
int cuMemcpyDtoH_v2(void* to, const void* from, size_t bytes) {
  LOCKED;
  return copy_now(to, from, bytes, from);
}
int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  LOCKED;
  return copy_async(to, from, bytes, to, from, stream);
}
int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  LOCKED;
  return copy_async(to, from, bytes, from, to, stream);
}

int cuStreamCreate(void** stream, unsigned int) {
  LOCKED;
  if (!has_context()) return kInvalidContext;
  auto made = std::make_unique<Stream>();
  *stream = made.get();
  streams[*stream] = std::move(made);
  return 0;
}
int cuStreamSynchronize(void* handle) {
  LOCKED;
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return kInvalidHandle;
  return ++waits, drain(*stream), 0;
}
int cuStreamDestroy_v2(void* handle) {
  LOCKED;
  if (streams.count(handle) == 0) return kInvalidHandle;
  drain(*streams[handle]);
  for (auto& entry : events)  // what it recorded has come
    if (entry.second->stream == handle) entry.second->stream = nullptr;
  return streams.erase(handle), 0;
}
int cuStreamWaitEvent(void* handle, void* event_handle, unsigned int) {
  LOCKED;
  if (events.count(event_handle) == 0) return kInvalidHandle;
  Event* event = events[event_handle].get();
  const long wanted = event->recorded;
  return enqueue(handle, [=] {
    while (event->reached < wanted && event->stream != nullptr) step(*event->stream);
  });
}

int cuEventCreate(void** event, unsigned int) {
  LOCKED;
  if (!has_context()) return kInvalidContext;
  auto made = std::make_unique<Event>();
  *event = made.get();
  events[*event] = std::move(made);
  return 0;
}
int cuEventDestroy_v2(void* event) {
  LOCKED;
  drain_all();
  return events.erase(event) == 0 ? kInvalidHandle : 0;
}
int cuEventRecord(void* event_handle, void* handle) {
  LOCKED;
  Stream* stream = find_stream(handle);
  if (stream == nullptr || events.count(event_handle) == 0) return kInvalidHandle;
  Event* event = events[event_handle].get();
  event->stream = stream;
  const long number = ++event->recorded;
  return enqueue(handle, [=] {
    event->reached = number;
    event->moment_ms = 0.25f * static_cast<float>(works_done);
  });
}
int cuEventSynchronize(void* event_handle) {
  LOCKED;
  if (events.count(event_handle) == 0) return kInvalidHandle;
  Event& event = *events[event_handle];
  ++waits;
  while (event.reached < event.recorded && event.stream != nullptr) step(*event.stream);
  return 0;
}
int cuEventElapsedTime(float* ms, void* start, void* end) {
  LOCKED;
  if (events.count(start) == 0 || events.count(end) == 0) return kInvalidHandle;
  for (void* each : {start, end})
    if (events[each]->reached < events[each]->recorded) return kNotReady;
  return *ms = events[end]->moment_ms - events[start]->moment_ms, 0;
}

int cuStreamBeginCapture_v2(void* handle, int) {
  LOCKED;
  const auto found = streams.find(handle);
  if (found == streams.end()) return kInvalidHandle;
  if (!captures_allowed) return kCaptureUnsupported;
  found->second->capture = std::make_unique<Graph>();
  return found->second->invalid_capture = false, 0;
}
int cuStreamEndCapture(void* handle, void** graph) {
  LOCKED;
  const auto found = streams.find(handle);
  if (found == streams.end() || found->second->capture == nullptr) return kInvalidHandle;
  std::unique_ptr<Graph> made = std::move(found->second->capture);
  *graph = nullptr;
  if (found->second->invalid_capture) return kCaptureInvalidated;
  *graph = made.get();
  graphs[*graph] = std::move(made);
  return 0;
}
int cuGraphInstantiate(void** executable, void* graph, unsigned long long) {
  LOCKED;
  if (graphs.count(graph) == 0) return kInvalidValue;
  auto made = std::make_unique<Graph>(*graphs[graph]);
  *executable = made.get();
  graphs[*executable] = std::move(made);
  return 0;
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
  return cuGraphInstantiate(executable, graph, flags);
}
int cuGraphLaunch(void* executable, void* stream) {
  LOCKED;
  if (graphs.count(executable) == 0) return kInvalidValue;
  ++graph_launches;
  for (const Work& work : graphs[executable]->work)
    if (const int status = enqueue(stream, work)) return status;
  return 0;
}
int cuGraphDestroy(void* graph) {
  LOCKED;
  return graphs.erase(graph) == 0 ? kInvalidValue : 0;
}
int cuGraphExecDestroy(void* executable) { return cuGraphDestroy(executable); }

int cuModuleLoadData(void** module, const void* image) {
  *module = &the_context;
  return std::memcmp(image, "\x7f" "ELF", 4) == 0 ? 0 : kInvalidValue;
}
int cuModuleUnload(void*) { return 0; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  static std::map<std::string, Function> found;
  LOCKED;
  size_t params_bytes = 0;
  if (const ImageKernel image = cclseg_find_image_kernel(name, &params_bytes)) {
    found[name] = {nullptr, image, params_bytes};
    return *function = &found[name], 0;
  }
  const char* types[] = {"f32", "f16", "s8"};
  for (int type = 0; type < 3; ++type)
    for (int radius = 0; radius < 5; ++radius)
      if (name == "cclseg_correlation_" + (types[type] + ("_r" + std::to_string(radius)))) {
        found[name] = {cclseg::find_kernel(static_cast<cclseg::MapType>(type), radius), nullptr, 0};
        return *function = &found[name], 0;
      }
  return kNotFound;
}
int cuLaunchKernel(void* function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                   unsigned int x, unsigned int y, unsigned int z, unsigned int shared_bytes,
                   void* stream, void** arguments, void**) {
  LOCKED;
  if (!has_context()) return kInvalidContext;
  last_stream = stream;
  const auto index = [](unsigned int a, unsigned int b, unsigned int c) {
    return EmulatedIndex{static_cast<int>(a), static_cast<int>(b), static_cast<int>(c)};
  };
  return launch(*static_cast<Function*>(function), index(grid_x, grid_y, grid_z), index(x, y, z),
                shared_bytes, stream, arguments);
}

int cuGetErrorString(int status, const char** text) {
  *text = status == kInvalidContext       ? "invalid device context"
          : status == kNotFound           ? "named symbol not found"
          : status == kInvalidHandle      ? "invalid resource handle"
          : status == kInvalidDevice      ? "invalid device ordinal"
          : status == kIllegalAddress     ? "an illegal memory access was encountered"
          : status == kNotReady           ? "device not ready"
          : status == kCaptureUnsupported ? "operation not permitted when stream is capturing"
          : status == kCaptureInvalidated
              ? "operation failed due to a previous error during capture"
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

// The network of the emulated TensorRT, queued: the means of 4 x 4 blocks.
int emulated_block_means(const float* images, float* logits, int planes, int height, int width,
                         void* stream) {
  LOCKED;
  return enqueue(stream, [=] {
    for (int i = 0; i < planes * (height / 4) * (width / 4); ++i) {
      const int x = i % (width / 4) * 4, y = i / (width / 4) % (height / 4) * 4;
      const float* plane = images + static_cast<long>(i / (width / 4) / (height / 4)) * height * width;
      double sum = 0;
      for (int k = 0; k < 16; ++k) sum += plane[(y + k / 4) * width + x + k % 4];
      logits[i] = static_cast<float>(sum / 16);
    }
  });
}

void* emulated_last_stream() { return last_stream; }
int emulated_is_stream(void* stream) { return stream != nullptr && streams.count(stream) > 0; }
int emulated_graph_launches() { return graph_launches; }
int emulated_allocated() { return allocated; }
int emulated_waits() { return waits; }
void emulated_allow_captures(int allowed) { captures_allowed = allowed != 0; }
int emulated_pending() {
  LOCKED;
  size_t pending = default_stream.work.size();
  for (const auto& entry : streams) pending += entry.second->work.size();
  return static_cast<int>(pending);
}
int emulated_live() {
  LOCKED;
  return static_cast<int>(allocations.size() + pinned.size() + streams.size() + events.size() +
                          graphs.size() + contexts.size()) +
         retained;
}

}  // extern "C"
