// Calls a plugin as TensorRT would, without TensorRT, and prints the answers:
//
//   plugin_driver LIBRARY [FIELD=VALUE...] types A B
//   plugin_driver LIBRARY [FIELD=VALUE...] shapes N C H W N C H W        (-1: dynamic)
//   plugin_driver LIBRARY [FIELD=VALUE...] formats TYPE
//   plugin_driver LIBRARY [FIELD=VALUE...] fields
//   plugin_driver LIBRARY [FIELD=VALUE...] run TYPE FORMAT N C H W IN OUT [SAMPLES]
//   plugin_driver device
//   plugin_driver copy BYTES SAMPLES
//
// TYPE and FORMAT are TensorRT's numbers. run reads both maps, one after the other, from the file
// IN, and writes the result to OUT; compiled by nvcc it works in the memory of the GPU and prints
// the microseconds of SAMPLES further runs. A FIELD is an integer, or a float where VALUE has a
// point. device prints the name of the GPU, copy the microseconds of copies within its memory.

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api.h"
#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#endif

using namespace nvinfer1;

[[noreturn]] void fail(const std::string& reason) {
  std::fprintf(stderr, "plugin_driver: %s\n", reason.c_str());
  std::exit(2);
}

// A size of a tensor: a number, or unknown (-1).
class Size final : public IDimensionExpr {
 public:
  explicit Size(int64_t value) : value_(value) { mImpl = &implementation_; }
  ~Size() noexcept override = default;
  int64_t value() const { return value_; }

 private:
  class Implementation final : public apiv::VDimensionExpr {
   public:
    explicit Implementation(const Size& size) : size_(size) {}
    bool isConstant() const override { return size_.value_ >= 0; }
    int64_t getConstantValue() const override { return size_.value_; }
    bool isSizeTensor() const override { return false; }

   private:
    const Size& size_;
  };
  int64_t value_;
  Implementation implementation_{*this};
};

class Builder final : public IExprBuilder {
 public:
  Builder() { mImpl = &implementation_; }
  ~Builder() noexcept override = default;

 private:
  class Implementation final : public apiv::VExprBuilder {
   public:
    const IDimensionExpr* constant(int64_t value) override {
      sizes_.push_back(std::make_unique<Size>(value));
      return sizes_.back().get();
    }
    const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&,
                                    const IDimensionExpr&) override {
      fail("the plugin asked for an operation on sizes");
    }
    const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                            const IDimensionExpr&) override {
      fail("the plugin declared a size tensor");
    }

   private:
    std::vector<std::unique_ptr<Size>> sizes_;
  };
  Implementation implementation_;
};

struct Creator {
  explicit Creator(const char* library) {
    void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) fail(dlerror());
    using GetCreators = IPluginCreatorInterface* const* (*)(int32_t&);
    const auto get = reinterpret_cast<GetCreators>(dlsym(handle, "getCreators"));
    if (get == nullptr || dlsym(handle, "setLoggerFinder") == nullptr) fail("no creators exported");
    int32_t count = 0;
    IPluginCreatorInterface* const* all = get(count);
    if (count != 1) fail("expected one creator");
    if (std::strcmp(all[0]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") != 0)
      fail("expected a creator of the third kind");
    creator = static_cast<IPluginCreatorV3One*>(all[0]);
  }
  IPluginCreatorV3One* creator;
};

template <class T>
T* capability(IPluginV3& plugin, PluginCapabilityType type) {
  return static_cast<T*>(plugin.getCapabilityInterface(type));
}

std::unique_ptr<IPluginV3> create(Creator& creator,
                                  const std::vector<std::pair<std::string, std::string>>& wanted) {
  std::vector<int64_t> integers(wanted.size());
  std::vector<float> floats(wanted.size());
  std::vector<PluginField> fields;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto& [name, value] = wanted[i];
    const bool is_float = value.find('.') != std::string::npos;
    integers[i] = std::atoll(value.c_str());
    floats[i] = std::strtof(value.c_str(), nullptr);
    const void* data = is_float ? static_cast<void*>(&floats[i]) : &integers[i];
    fields.emplace_back(name.c_str(), data,
                        is_float ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT64, 1);
  }
  PluginFieldCollection collection = {};
  collection.nbFields = static_cast<int32_t>(fields.size());
  collection.fields = fields.data();
  std::unique_ptr<IPluginV3> plugin(
      creator.creator->createPlugin("driven", &collection, TensorRTPhase::kBUILD));
  if (plugin == nullptr) fail("no plugin created");
  return plugin;
}

void print_fields(IPluginV3& plugin) {
  auto* runtime = capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
  const PluginFieldCollection* fields = runtime->getFieldsToSerialize();
  for (int i = 0; i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    if (field.type == PluginFieldType::kINT32)
      std::printf("%s=%d ", field.name, *static_cast<const int32_t*>(field.data));
    else
      std::printf("%s=%.9g ", field.name, *static_cast<const float*>(field.data));
  }
  std::printf("\n");
}

// What an engine does with a plugin: the fields are stored, and a new process makes it again.
std::unique_ptr<IPluginV3> store_and_load(Creator& creator, IPluginV3& plugin) {
  auto* runtime = capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
  const PluginFieldCollection* stored = runtime->getFieldsToSerialize();
  std::vector<std::vector<char>> bytes;
  std::vector<PluginField> fields;
  for (int i = 0; i < stored->nbFields; ++i) {
    const PluginField& field = stored->fields[i];
    const auto* data = static_cast<const char*>(field.data);
    bytes.emplace_back(data, data + 4 * field.length);
    fields.emplace_back(field.name, bytes.back().data(), field.type, field.length);
  }
  PluginFieldCollection collection = {};
  collection.nbFields = static_cast<int32_t>(fields.size());
  collection.fields = fields.data();
  return std::unique_ptr<IPluginV3>(
      creator.creator->createPlugin("loaded", &collection, TensorRTPhase::kRUNTIME));
}

void print_types(IPluginV3& plugin, int a, int b) {
  auto* build = capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
  const DataType in[2] = {static_cast<DataType>(a), static_cast<DataType>(b)};
  DataType out[1] = {};
  if (build->getOutputDataTypes(out, 1, in, 2) != 0) fail("types refused");
  std::printf("%d\n", static_cast<int>(out[0]));
}

void print_shapes(IPluginV3& plugin, const std::vector<int64_t>& numbers) {
  auto* build = capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
  std::vector<std::unique_ptr<Size>> sizes;
  DimsExprs in[2] = {}, out[1] = {};
  for (int map = 0; map < 2; ++map) {
    in[map].nbDims = 4;
    for (int axis = 0; axis < 4; ++axis) {
      sizes.push_back(std::make_unique<Size>(numbers[4 * map + axis]));
      in[map].d[axis] = sizes.back().get();
    }
  }
  Builder builder;
  if (build->getOutputShapes(in, 2, nullptr, 0, out, 1, builder) != 0) fail("shapes refused");
  for (int axis = 0; axis < out[0].nbDims; ++axis)
    std::printf("%lld ", static_cast<long long>(static_cast<const Size*>(out[0].d[axis])->value()));
  std::printf("\n");
}

// All combinations that the plugin takes for maps of one type, as "format format type format".
void print_formats(IPluginV3& plugin, int type) {
  auto* build = capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
  DynamicPluginTensorDesc tensors[3] = {};
  const auto supported = [&](int position, int data_type, int format) {
    tensors[position].desc.type = static_cast<DataType>(data_type);
    tensors[position].desc.format = static_cast<TensorFormat>(format);
    return build->supportsFormatCombination(position, tensors, 2, 1);
  };
  for (int a = 0; a < 13; ++a) {
    if (!supported(0, type, a)) continue;
    for (int b = 0; b < 13; ++b) {
      if (!supported(1, type, b)) continue;
      for (int out_type = 0; out_type < 12; ++out_type)
        for (int out = 0; out < 13; ++out)
          if (supported(2, out_type, out)) std::printf("%d %d %d %d\n", a, b, out_type, out);
    }
  }
}

struct Memory {
#if defined(__CUDACC__)
  explicit Memory(size_t bytes) { cudaMalloc(&data, bytes); }
  ~Memory() { cudaFree(data); }
  void write(const char* from, size_t bytes) {
    cudaMemcpy(data, from, bytes, cudaMemcpyHostToDevice);
  }
  void read(char* to, size_t bytes) { cudaMemcpy(to, data, bytes, cudaMemcpyDeviceToHost); }
#else
  explicit Memory(size_t bytes) : data(std::aligned_alloc(256, (bytes + 255) / 256 * 256)) {}
  ~Memory() { std::free(data); }
  void write(const char* from, size_t bytes) { std::memcpy(data, from, bytes); }
  void read(char* to, size_t bytes) { std::memcpy(to, data, bytes); }
#endif
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data = nullptr;
};

size_t bytes_of(const PluginTensorDesc& tensor) {
  size_t bytes = tensor.type == DataType::kFLOAT ? 4 : tensor.type == DataType::kHALF ? 2 : 1;
  for (int axis = 0; axis < 4; ++axis) {
    const bool packed = axis == 1 && tensor.format == TensorFormat::kCHW4;
    bytes *= packed ? (tensor.dims.d[axis] + 3) / 4 * 4 : tensor.dims.d[axis];
  }
  return bytes;
}

#if defined(__CUDACC__)
template <class Work>
void print_microseconds(int samples, Work work) {
  cudaStream_t stream;
  cudaEvent_t begin, end;
  cudaStreamCreate(&stream);
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  for (int i = -20; i < samples; ++i) {  // the first runs warm up
    cudaEventRecord(begin, stream);
    work(stream);
    cudaEventRecord(end, stream);
    cudaEventSynchronize(end);
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, begin, end);
    if (i >= 0) std::printf("%.3f\n", 1e3 * milliseconds);
  }
}

void print_device() {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) fail("no CUDA device");
  std::printf("%s\n", properties.name);
}

void print_copies(size_t bytes, int samples) {
  Memory from(bytes), to(bytes);
  print_microseconds(samples, [&](cudaStream_t stream) {
    cudaMemcpyAsync(to.data, from.data, bytes, cudaMemcpyDeviceToDevice, stream);
  });
}
#else
template <class Work>
void print_microseconds(int samples, Work) {
  if (samples != 0) fail("only a GPU is timed");
}
void print_device() { fail("compiled for the CPU"); }
void print_copies(size_t, int) { fail("only a GPU is timed"); }
#endif

void run(Creator& creator, IPluginV3& built, char** arguments, int samples) {
  const std::unique_ptr<IPluginV3> loaded = store_and_load(creator, built);
  auto* loader = capability<IPluginV3OneRuntime>(*loaded, PluginCapabilityType::kRUNTIME);
  const std::unique_ptr<IPluginV3> plugin(loader->attachToContext(nullptr));
  auto* build = capability<IPluginV3OneBuild>(*plugin, PluginCapabilityType::kBUILD);
  auto* runtime = capability<IPluginV3OneRuntime>(*plugin, PluginCapabilityType::kRUNTIME);
  const auto fields = runtime->getFieldsToSerialize();
  std::map<std::string, int> options;
  for (int i = 0; i < fields->nbFields; ++i)
    if (fields->fields[i].type == PluginFieldType::kINT32)
      options[fields->fields[i].name] = *static_cast<const int32_t*>(fields->fields[i].data);

  PluginTensorDesc in[2] = {}, out[1] = {};
  in[0].type = static_cast<DataType>(std::atoi(arguments[0]));
  in[0].format = static_cast<TensorFormat>(std::atoi(arguments[1]));
  in[0].dims.nbDims = 4;
  for (int axis = 0; axis < 4; ++axis) in[0].dims.d[axis] = std::atoll(arguments[2 + axis]);
  in[1] = out[0] = in[0];
  const int side = 2 * options["radius"] + 1;
  out[0].dims.d[1] = options["groups"] * side * side;
  out[0].format = TensorFormat::kLINEAR;
  const DataType types[2] = {in[0].type, in[1].type};
  if (build->getOutputDataTypes(&out[0].type, 1, types, 2) != 0) fail("types refused");

  std::ifstream file(arguments[6], std::ios::binary);
  const std::vector<char> maps{std::istreambuf_iterator<char>(file), {}};
  const size_t in_bytes = bytes_of(in[0]), out_bytes = bytes_of(out[0]);
  if (maps.size() != 2 * in_bytes) fail("the file does not hold two such maps");
  Memory a(in_bytes), b(in_bytes), result(out_bytes);
  a.write(maps.data(), in_bytes);
  b.write(maps.data() + in_bytes, in_bytes);
  const void* inputs[2] = {a.data, b.data};
  void* outputs[1] = {result.data};
  if (runtime->onShapeChange(in, 2, out, 1) != 0) fail("shape refused");
  if (runtime->enqueue(in, out, inputs, outputs, nullptr, nullptr) != 0) fail("enqueue failed");
  std::vector<char> values(out_bytes);
  result.read(values.data(), out_bytes);
  std::ofstream(arguments[7], std::ios::binary).write(values.data(), out_bytes);
  print_microseconds(samples, [&](cudaStream_t stream) {
    runtime->enqueue(in, out, inputs, outputs, nullptr, stream);
  });
}

int main(int count, char** arguments) {
  if (count == 2 && std::strcmp(arguments[1], "device") == 0) return print_device(), 0;
  if (count == 4 && std::strcmp(arguments[1], "copy") == 0)
    return print_copies(std::strtoull(arguments[2], nullptr, 10), std::atoi(arguments[3])), 0;
  if (count < 3) fail("expected a library and a command");
  Creator creator(arguments[1]);
  std::vector<std::pair<std::string, std::string>> fields;
  int at = 2;
  for (; at < count; ++at) {
    const char* equals = std::strchr(arguments[at], '=');
    if (equals == nullptr) break;
    fields.emplace_back(std::string(arguments[at], equals - arguments[at]), equals + 1);
  }
  if (at == count) fail("expected a command");
  const std::unique_ptr<IPluginV3> plugin = create(creator, fields);
  const std::string command = arguments[at++];
  const int rest = count - at;
  char** values = arguments + at;
  if (command == "types" && rest == 2) {
    print_types(*plugin, std::atoi(values[0]), std::atoi(values[1]));
  } else if (command == "shapes" && rest == 8) {
    std::vector<int64_t> numbers;
    for (int i = 0; i < 8; ++i) numbers.push_back(std::atoll(values[i]));
    print_shapes(*plugin, numbers);
  } else if (command == "formats" && rest == 1) {
    print_formats(*plugin, std::atoi(values[0]));
  } else if (command == "fields" && rest == 0) {
    print_fields(*plugin);
    print_fields(*store_and_load(creator, *plugin));
    print_fields(*std::unique_ptr<IPluginV3>(plugin->clone()));
  } else if (command == "run" && (rest == 8 || rest == 9)) {
    run(creator, *plugin, values, rest == 9 ? std::atoi(values[8]) : 0);
  } else {
    fail("unknown command " + command);
  }
  return 0;
}
