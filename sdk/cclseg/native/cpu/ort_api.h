// The few entries of ONNX Runtime's C interface that a custom operator needs.
//
// ONNX Runtime's table of functions only ever grows at its end, so an entry's index in it is the
// same in every version that has it; all of these are in 1.18 (interface version 18). Declaring
// them here lets the operator be compiled where no headers are, and one library run everywhere.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ort {

constexpr uint32_t kInterfaceVersion = 18;

struct Status;
struct Value;
struct Context;
struct KernelInfo;
struct TypeAndShape;
struct Domain;
struct SessionOptions;
struct CustomOp;

struct Api {
  const void* entries[275];

  template <class Function>
  Function* at(size_t index) const {
    return reinterpret_cast<Function*>(const_cast<void*>(entries[index]));
  }

  Status* create_status(int code, const char* message) const {
    return at<Status*(int, const char*)>(0)(code, message);
  }
  void release_status(Status* status) const { at<void(Status*)>(93)(status); }

  Status* create_domain(const char* name, Domain** out) const {
    return at<Status*(const char*, Domain**)>(26)(name, out);
  }
  Status* add_op(Domain* domain, const CustomOp* op) const {
    return at<Status*(Domain*, const CustomOp*)>(27)(domain, op);
  }
  Status* add_domain(SessionOptions* options, Domain* domain) const {
    return at<Status*(SessionOptions*, Domain*)>(28)(options, domain);
  }

  Status* data_of(Value* tensor, void** out) const {
    return at<Status*(Value*, void**)>(51)(tensor, out);
  }
  Status* rank_of(const TypeAndShape* info, size_t* out) const {
    return at<Status*(const TypeAndShape*, size_t*)>(61)(info, out);
  }
  Status* sizes_of(const TypeAndShape* info, int64_t* out, size_t rank) const {
    return at<Status*(const TypeAndShape*, int64_t*, size_t)>(62)(info, out, rank);
  }
  Status* shape_of(const Value* tensor, TypeAndShape** out) const {
    return at<Status*(const Value*, TypeAndShape**)>(65)(tensor, out);
  }
  void release_shape(TypeAndShape* info) const { at<void(TypeAndShape*)>(99)(info); }

  Status* attribute(const KernelInfo* info, const char* name, float* out) const {
    return at<Status*(const KernelInfo*, const char*, float*)>(85)(info, name, out);
  }
  Status* attribute(const KernelInfo* info, const char* name, int64_t* out) const {
    return at<Status*(const KernelInfo*, const char*, int64_t*)>(86)(info, name, out);
  }

  Status* input(const Context* context, size_t index, const Value** out) const {
    return at<Status*(const Context*, size_t, const Value**)>(90)(context, index, out);
  }
  Status* output(Context* context, size_t index, const int64_t* sizes, size_t rank,
                 Value** out) const {
    return at<Status*(Context*, size_t, const int64_t*, size_t, Value**)>(91)(context, index, sizes,
                                                                            rank, out);
  }
  Status* parallel_for(const Context* context, void (*body)(void*, size_t), size_t count,
                       size_t batches, void* data) const {
    return at<Status*(const Context*, void (*)(void*, size_t), size_t, size_t, void*)>(274)(
        context, body, count, batches, data);
  }
};

struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*version)();
};

enum ErrorCode { kFail = 1, kInvalidArgument = 2 };
enum ElementType { kFloat = 1, kInt8 = 3 };

// What the library asks of an operator; members in the order of interface version 18.
struct CustomOp {
  uint32_t version = kInterfaceVersion;
  void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*) = nullptr;
  const char* (*name)(const CustomOp*) = nullptr;
  const char* (*execution_provider)(const CustomOp*) = nullptr;
  int (*input_type)(const CustomOp*, size_t) = nullptr;
  size_t (*input_count)(const CustomOp*) = nullptr;
  int (*output_type)(const CustomOp*, size_t) = nullptr;
  size_t (*output_count)(const CustomOp*) = nullptr;
  void (*compute)(void*, Context*) = nullptr;
  void (*destroy)(void*) = nullptr;
  int (*input_kind)(const CustomOp*, size_t) = nullptr;
  int (*output_kind)(const CustomOp*, size_t) = nullptr;
  int (*input_memory)(const CustomOp*, size_t) = nullptr;
  int (*variadic_input_least)(const CustomOp*) = nullptr;
  int (*variadic_input_alike)(const CustomOp*) = nullptr;
  int (*variadic_output_least)(const CustomOp*) = nullptr;
  int (*variadic_output_alike)(const CustomOp*) = nullptr;
  Status* (*create_kernel_v2)(const CustomOp*, const Api*, const KernelInfo*, void**) = nullptr;
  Status* (*compute_v2)(void*, Context*) = nullptr;
  Status* (*infer_shape)(const CustomOp*, void*) = nullptr;
  int (*first_version)(const CustomOp*) = nullptr;
  int (*last_version)(const CustomOp*) = nullptr;
  size_t (*may_be_in_place)(int**, int**) = nullptr;
  void (*release_in_place)(int*, int*) = nullptr;
  size_t (*aliases)(int**, int**) = nullptr;
  void (*release_aliases)(int*, int*) = nullptr;
};

}  // namespace ort
