// The local correlation as a TensorRT plugin: name LocalCorrelation, version 1, namespace cclseg.
//
// Inputs   a, b (N, C, H, W), each size fixed or dynamic: fp32 or fp16 linear; int8 linear or in
//          packs of four channels (kCHW4).
// Output   (N, groups * (2R + 1)^2, H, W), linear: of the inputs' type, or for int8 of out_dtype.
// Fields   radius, dilation, groups, normalize; for int8 also a_scale, b_scale, out_scale (value of
//          one step) and out_dtype (ONNX: 1 fp32, 10 fp16, 3 int8; 0 stands for fp32).
//
// One source for TensorRT 10.3 to 11 and TensorRT for RTX. The library needs no symbol of theirs:
// they call getCreators. The logger that they offer stays unused because its table of virtual
// functions differs between 10 and 11; reasons of refusals go to the standard error stream.

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "../cuda/launch.h"
#include "api.h"

namespace {

using namespace nvinfer1;
using cclseg::MapType;

constexpr char kName[] = "LocalCorrelation";
constexpr char kVersion[] = "1";
constexpr char kNamespace[] = "cclseg";
constexpr int kOnnxFloat = 1, kOnnxInt8 = 3, kOnnxHalf = 10;

// Says why, and returns the status that TensorRT takes for a failure.
__attribute__((format(printf, 1, 2))) int32_t refuse(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  char text[512];
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "%s::%s: %s\n", kNamespace, kName, text);
  return -1;
}

struct Options {
  int32_t radius = -1, dilation = 1, groups = 1, normalize = 0, out_dtype = 0;
  float a_scale = 1.0f, b_scale = 1.0f, out_scale = 1.0f;
};

template <class T>
struct Field {
  using Member = T Options::*;
  const char* name;
  Member value;
};
constexpr Field<int32_t> kIntegers[] = {{"radius", &Options::radius},
                                        {"dilation", &Options::dilation},
                                        {"groups", &Options::groups},
                                        {"normalize", &Options::normalize},
                                        {"out_dtype", &Options::out_dtype}};
constexpr Field<float> kFloats[] = {{"a_scale", &Options::a_scale},
                                    {"b_scale", &Options::b_scale},
                                    {"out_scale", &Options::out_scale}};
constexpr int kFields = 8;

// The fields of a plugin, or their names and types where ``options`` is null.
struct FieldList {
  explicit FieldList(const Options* options) {
    int n = 0;
    for (const auto& field : kIntegers)
      fields[n++] = {field.name, options ? &(options->*field.value) : nullptr,
                     PluginFieldType::kINT32, 1};
    for (const auto& field : kFloats)
      fields[n++] = {field.name, options ? &(options->*field.value) : nullptr,
                     PluginFieldType::kFLOAT32, 1};
    collection.nbFields = n;
    collection.fields = fields;
  }
  FieldList(const FieldList&) = delete;
  FieldList& operator=(const FieldList&) = delete;

  PluginField fields[kFields];
  PluginFieldCollection collection = {};
};

// Parsers hand over ONNX integers as they are declared here or as they stand in the file.
bool read_field(const PluginField& field, Options& options) {
  for (const auto& known : kIntegers) {
    if (std::strcmp(field.name, known.name) != 0) continue;
    if (field.length != 1 || field.data == nullptr) return false;
    if (field.type == PluginFieldType::kINT32) {
      options.*known.value = *static_cast<const int32_t*>(field.data);
      return true;
    }
    if (field.type == PluginFieldType::kINT64) {
      const int64_t value = *static_cast<const int64_t*>(field.data);
      options.*known.value = static_cast<int32_t>(value);
      return value == options.*known.value;
    }
    return false;
  }
  for (const auto& known : kFloats) {
    if (std::strcmp(field.name, known.name) != 0) continue;
    if (field.length != 1 || field.data == nullptr || field.type != PluginFieldType::kFLOAT32)
      return false;
    options.*known.value = *static_cast<const float*>(field.data);
    return true;
  }
  // Where to find the plugin, which some parsers pass on.
  return std::strcmp(field.name, "plugin_namespace") == 0 ||
         std::strcmp(field.name, "plugin_version") == 0;
}

bool check(const Options& o) {
  if (o.radius < 0) return !refuse("got radius %d; expected 0 or more", o.radius);
  if (o.dilation < 1) return !refuse("got dilation %d; expected 1 or more", o.dilation);
  if (o.groups < 1) return !refuse("got groups %d; expected 1 or more", o.groups);
  if (o.normalize != 0 && o.normalize != 1)
    return !refuse("got normalize %d; expected 0 or 1", o.normalize);
  if (o.out_dtype != 0 && o.out_dtype != kOnnxFloat && o.out_dtype != kOnnxHalf &&
      o.out_dtype != kOnnxInt8)
    return !refuse("got out_dtype %d; expected 1 (fp32), 10 (fp16) or 3 (int8)", o.out_dtype);
  if (!(o.a_scale > 0 && o.b_scale > 0 && o.out_scale > 0))
    return !refuse("got scales %g, %g, %g; expected numbers above 0", o.a_scale, o.b_scale,
                   o.out_scale);
  return true;
}

bool is_map_type(DataType type) {
  return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kINT8;
}

class Plugin final : public IPluginV3,
                     public IPluginV3OneCore,
                     public IPluginV3OneBuild,
                     public IPluginV3OneRuntime {
 public:
  explicit Plugin(const Options& options) : options_(options), fields_(&options_) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  IPluginV3* clone() noexcept override {
    auto* copy = new (std::nothrow) Plugin(options_);
    if (copy != nullptr) copy->multiprocessors_ = multiprocessors_;
    return copy;
  }

  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t getOutputDataTypes(DataType* out, int32_t outputs, const DataType* in,
                             int32_t inputs) const noexcept override {
    if (inputs != 2 || outputs != 1)
      return refuse("got %d inputs and %d outputs; expected 2 and 1", inputs, outputs);
    if (in[0] != in[1] || !is_map_type(in[0]))
      return refuse("got inputs of types %d and %d; expected both fp32, fp16 or int8",
                    static_cast<int>(in[0]), static_cast<int>(in[1]));
    out[0] = output_type(in[0]);
    if (in[0] != DataType::kINT8 && options_.out_dtype != 0 && out[0] != named_type())
      return refuse("got out_dtype %d for floating inputs; expected their own type or none",
                    options_.out_dtype);
    return 0;
  }

  int32_t getOutputShapes(const DimsExprs* in, int32_t inputs, const DimsExprs*, int32_t,
                          DimsExprs* out, int32_t outputs,
                          IExprBuilder& builder) noexcept override {
    if (inputs != 2 || outputs != 1)
      return refuse("got %d inputs and %d outputs; expected 2 and 1", inputs, outputs);
    if (in[0].nbDims != 4 || in[1].nbDims != 4)
      return refuse("got maps of %d and %d dimensions; expected (N, C, H, W)", in[0].nbDims,
                    in[1].nbDims);
    for (int axis = 0; axis < 4; ++axis) {
      const IDimensionExpr &left = *in[0].d[axis], &right = *in[1].d[axis];
      if (left.isConstant() && right.isConstant() &&
          left.getConstantValue() != right.getConstantValue())
        return refuse("axis %d is %lld in a and %lld in b; expected maps of one shape", axis,
                      static_cast<long long>(left.getConstantValue()),
                      static_cast<long long>(right.getConstantValue()));
    }
    const int64_t side = 2 * static_cast<int64_t>(options_.radius) + 1;
    out[0] = in[0];
    out[0].d[1] = builder.constant(options_.groups * side * side);
    return 0;
  }

  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* in_out, int32_t,
                                 int32_t) noexcept override {
    const PluginTensorDesc &tensor = in_out[position].desc, &first = in_out[0].desc;
    const bool linear = tensor.format == TensorFormat::kLINEAR;
    switch (position) {
      case 0:
        return is_map_type(tensor.type) &&
               (linear ||
                (tensor.type == DataType::kINT8 && tensor.format == TensorFormat::kCHW4));
      case 1: return tensor.type == first.type && tensor.format == first.format;
      default: return tensor.type == output_type(first.type) && linear;
    }
  }

  int32_t configurePlugin(const DynamicPluginTensorDesc* in, int32_t,
                          const DynamicPluginTensorDesc*, int32_t) noexcept override {
    return check_channels(in[0].desc.dims.d[1]);
  }

  int32_t onShapeChange(const PluginTensorDesc* in, int32_t, const PluginTensorDesc*,
                        int32_t) noexcept override {
    const Dims &a = in[0].dims, &b = in[1].dims;
    for (int axis = 0; axis < 4; ++axis)
      if (a.d[axis] != b.d[axis] || a.d[axis] < 1 || a.d[axis] > INT_MAX)
        return refuse("axis %d is %lld in a and %lld in b; expected maps of one shape", axis,
                      static_cast<long long>(a.d[axis]), static_cast<long long>(b.d[axis]));
    if (const int32_t status = check_channels(a.d[1])) return status;
    params_ = {};
    params_.batch = static_cast<int>(a.d[0]);
    params_.channels = static_cast<int>(a.d[1]);
    params_.height = static_cast<int>(a.d[2]);
    params_.width = static_cast<int>(a.d[3]);
    params_.radius = options_.radius;
    params_.dilation = options_.dilation;
    params_.groups = options_.groups;
    params_.normalize = options_.normalize;
    params_.packed = in[0].format == TensorFormat::kCHW4;
    params_.scale = 1.0f;
    params_.out_scale = 1.0f;
    type_ = in[0].type == DataType::kFLOAT  ? MapType::kF32
            : in[0].type == DataType::kHALF ? MapType::kF16
                                            : MapType::kS8;
    if (type_ == MapType::kS8) {
      const DataType out = output_type(DataType::kINT8);
      params_.out_type = out == DataType::kFLOAT ? 0 : out == DataType::kHALF ? 1 : 2;
      params_.scale = options_.a_scale * options_.b_scale;
      params_.out_scale = options_.out_scale;
    }
    if (multiprocessors_ == 0) multiprocessors_ = cclseg::count_multiprocessors();
    launch_ = cclseg::plan_launch(params_, type_, multiprocessors_);
    if (launch_.blocks == 0)
      return refuse("maps of %d x %d x %d x %d are too large for one launch; cut them into tiles",
                    params_.batch, params_.channels, params_.height, params_.width);
    return 0;
  }

  // Neither allocates nor waits, so that it may be captured in a CUDA graph.
  int32_t enqueue(const PluginTensorDesc*, const PluginTensorDesc*, const void* const* in,
                  void* const* out, void*, cudaStream_t stream) noexcept override {
    if (launch_.blocks == 0) return refuse("enqueue was called before onShapeChange");
    CorrelationParams params = params_;
    const auto bits = reinterpret_cast<uintptr_t>(in[0]) | reinterpret_cast<uintptr_t>(in[1]) |
                      reinterpret_cast<uintptr_t>(out[0]);
    params.aligned = params.width % 4 == 0 && bits % 16 == 0;
    const char* problem = cclseg::run(params, type_, launch_, in[0], in[1], out[0], stream);
    return problem == nullptr ? 0 : refuse("the launch failed: %s", problem);
  }

  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    return &fields_.collection;
  }

 private:
  DataType named_type() const {
    return options_.out_dtype == kOnnxHalf   ? DataType::kHALF
           : options_.out_dtype == kOnnxInt8 ? DataType::kINT8
                                             : DataType::kFLOAT;
  }
  DataType output_type(DataType input) const {
    return input == DataType::kINT8 ? named_type() : input;
  }
  int32_t check_channels(int64_t channels) const {  // -1 while they are unknown
    if (channels >= 0 && channels % options_.groups != 0)
      return refuse("got %d groups for %lld channels; expected a number that divides them",
                    options_.groups, static_cast<long long>(channels));
    return 0;
  }

  const Options options_;
  FieldList fields_;
  int multiprocessors_ = 0;
  MapType type_ = MapType::kF32;
  CorrelationParams params_ = {};
  cclseg::Launch launch_ = {};
};

class Creator final : public IPluginCreatorV3One {
 public:
  IPluginV3* createPlugin(const char*, const PluginFieldCollection* collection,
                          TensorRTPhase) noexcept override {
    Options options;
    const int count = collection == nullptr ? 0 : collection->nbFields;
    for (int i = 0; i < count; ++i) {
      const PluginField& field = collection->fields[i];
      if (field.name == nullptr || !read_field(field, options)) {
        refuse("got the field '%s' of type %d and length %d; expected one number for radius, "
               "dilation, groups, normalize, out_dtype, a_scale, b_scale or out_scale",
               field.name == nullptr ? "" : field.name, static_cast<int>(field.type), field.length);
        return nullptr;
      }
    }
    return check(options) ? new (std::nothrow) Plugin(options) : nullptr;
  }
  const PluginFieldCollection* getFieldNames() noexcept override { return &names_.collection; }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  FieldList names_{nullptr};
};

}  // namespace

extern "C" __attribute__((visibility("default"))) IPluginCreatorInterface* const* getCreators(
    int32_t& count) {
  static Creator creator;
  static IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(ILoggerFinder*) {}
