// cclseg::LocalCorrelation as a custom operator of ONNX Runtime: float32 maps, or int8 maps with
// the attributes a_scale and b_scale; the result is float32.
#include <cstdio>
#include <new>

#include "correlation.h"
#include "ort_api.h"

namespace {

using cclseg::Problem;
using cclseg::Type;

struct Op : ort::CustomOp {
  Type type;
};

struct OpKernel {
  const ort::Api* api;
  const cclseg::Kernel* kernel;
  Problem problem;  // sizes are filled in per call
};

struct Host {
  const ort::Api* api;
  const ort::Context* context;
  ort::Status* status;
};

void run_on_threads(void* data, void (*body)(void*, size_t), size_t count, void* job) {
  Host* host = static_cast<Host*>(data);
  host->status = host->api->parallel_for(host->context, body, count, 0, job);
}

// Reads an attribute that may be absent.
template <class T>
void read(const ort::Api* api, const ort::KernelInfo* info, const char* name, T* value) {
  T found;
  if (ort::Status* status = api->attribute(info, name, &found)) {
    api->release_status(status);
  } else {
    *value = found;
  }
}

ort::Status* create(const ort::CustomOp* op, const ort::Api* api, const ort::KernelInfo* info,
                    void** out) {
  OpKernel* kernel = new (std::nothrow) OpKernel{api, &cclseg::best_kernel(), {}};
  if (kernel == nullptr) return api->create_status(ort::kFail, "out of memory");
  Problem& problem = kernel->problem;
  problem.type = static_cast<const Op*>(op)->type;
  if (ort::Status* status = api->attribute(info, "radius", &problem.radius)) {
    delete kernel;
    return status;
  }
  int64_t normalize = 0;
  read(api, info, "dilation", &problem.dilation);
  read(api, info, "groups", &problem.groups);
  read(api, info, "normalize", &normalize);
  problem.normalize = normalize != 0;
  if (problem.type == Type::kInt8) {
    read(api, info, "a_scale", &problem.a_scale);
    read(api, info, "b_scale", &problem.b_scale);
  }
  Problem any_maps = problem;
  any_maps.channels = problem.groups;
  if (const char* reason = cclseg::misfit(any_maps)) {
    delete kernel;
    return api->create_status(ort::kInvalidArgument, reason);
  }
  *out = kernel;
  return nullptr;
}

ort::Status* read_map(const OpKernel& kernel, ort::Context* context, size_t index, int64_t sizes[4],
                      void** data) {
  const ort::Api* api = kernel.api;
  const ort::Value* value;
  if (ort::Status* status = api->input(context, index, &value)) return status;
  ort::TypeAndShape* shape;
  if (ort::Status* status = api->shape_of(value, &shape)) return status;
  size_t rank = 0;
  ort::Status* status = api->rank_of(shape, &rank);
  if (status == nullptr && rank != 4) {
    status = api->create_status(ort::kInvalidArgument, "a map has not the shape (N, C, H, W)");
  }
  if (status == nullptr) status = api->sizes_of(shape, sizes, 4);
  api->release_shape(shape);
  if (status != nullptr) return status;
  return api->data_of(const_cast<ort::Value*>(value), data);
}

ort::Status* compute(void* data, ort::Context* context) {
  const OpKernel& kernel = *static_cast<const OpKernel*>(data);
  const ort::Api* api = kernel.api;
  int64_t sizes[4], sizes_b[4];
  void *a, *b, *out;
  if (ort::Status* status = read_map(kernel, context, 0, sizes, &a)) return status;
  if (ort::Status* status = read_map(kernel, context, 1, sizes_b, &b)) return status;
  for (int i = 0; i < 4; ++i) {
    if (sizes[i] != sizes_b[i]) {
      return api->create_status(ort::kInvalidArgument,
                                "the maps of LocalCorrelation have different shapes");
    }
  }
  Problem problem = kernel.problem;
  problem.batch = sizes[0];
  problem.channels = sizes[1];
  problem.height = sizes[2];
  problem.width = sizes[3];
  if (const char* reason = cclseg::misfit(problem)) {
    return api->create_status(ort::kInvalidArgument, reason);
  }
  const int64_t out_sizes[4] = {sizes[0], cclseg::window_size(problem), sizes[2], sizes[3]};
  ort::Value* result;
  if (ort::Status* status = api->output(context, 0, out_sizes, 4, &result)) return status;
  if (ort::Status* status = api->data_of(result, &out)) return status;
  Host host = {api, context, nullptr};
  const bool done = cclseg::correlate(*kernel.kernel, problem, a, b, static_cast<float*>(out),
                                      {run_on_threads, &host});
  if (host.status != nullptr) return host.status;
  return done ? nullptr : api->create_status(ort::kFail, "out of memory");
}

template <int kMaps>
Op make_op(Type type) {
  Op op;
  op.type = type;
  op.name = [](const ort::CustomOp*) { return "LocalCorrelation"; };
  op.execution_provider = [](const ort::CustomOp*) -> const char* { return nullptr; };
  op.input_type = [](const ort::CustomOp*, size_t) -> int { return kMaps; };
  op.input_count = [](const ort::CustomOp*) -> size_t { return 2; };
  op.output_type = [](const ort::CustomOp*, size_t) -> int { return ort::kFloat; };
  op.output_count = [](const ort::CustomOp*) -> size_t { return 1; };
  op.destroy = [](void* kernel) { delete static_cast<OpKernel*>(kernel); };
  op.input_kind = [](const ort::CustomOp*, size_t) { return 0; };   // required
  op.output_kind = [](const ort::CustomOp*, size_t) { return 0; };  // required
  op.input_memory = [](const ort::CustomOp*, size_t) { return 0; };
  op.variadic_input_least = [](const ort::CustomOp*) { return 1; };
  op.variadic_input_alike = [](const ort::CustomOp*) { return 1; };
  op.variadic_output_least = [](const ort::CustomOp*) { return 1; };
  op.variadic_output_alike = [](const ort::CustomOp*) { return 1; };
  op.create_kernel_v2 = create;
  op.compute_v2 = compute;
  op.first_version = [](const ort::CustomOp*) { return 1; };
  op.last_version = [](const ort::CustomOp*) { return 0x7fffffff; };
  return op;
}

}  // namespace

// The entry point that ONNX Runtime looks for.
extern "C" __attribute__((visibility("default"))) ort::Status* RegisterCustomOps(
    ort::SessionOptions* options, const ort::ApiBase* base) {
  static const Op float_op = make_op<ort::kFloat>(Type::kFloat32);
  static const Op int8_op = make_op<ort::kInt8>(Type::kInt8);
  const ort::Api* api = base->get_api(ort::kInterfaceVersion);
  if (api == nullptr) return nullptr;  // older than 1.18: the operator stays unknown
  ort::Domain* domain;  // referred to by every session that is made with the options
  if (ort::Status* status = api->create_domain("cclseg", &domain)) return status;
  if (ort::Status* status = api->add_op(domain, &float_op)) return status;
  if (ort::Status* status = api->add_op(domain, &int8_op)) return status;
  return api->add_domain(options, domain);
}
