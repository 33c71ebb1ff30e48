// cclseg::LocalCorrelation as an extension of OpenVINO: float32 maps, or int8 maps with the
// attributes a_scale and b_scale; the result is float32. Threads are those of the plug-in.
#include <memory>
#include <vector>

#include <oneapi/tbb/parallel_for.h>
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/conversion.hpp>
#include <openvino/op/op.hpp>

#include "correlation.h"

namespace {

using cclseg::Problem;
using cclseg::Type;

void run_on_threads(void*, void (*body)(void*, size_t), size_t count, void* data) {
  tbb::parallel_for(size_t{0}, count, [=](size_t i) { body(data, i); });
}

class LocalCorrelation : public ov::op::Op {
 public:
  OPENVINO_OP("LocalCorrelation", "cclseg");

  LocalCorrelation() = default;
  LocalCorrelation(const ov::OutputVector& maps, const Problem& problem)
      : Op(maps), problem_(problem) {
    constructor_validate_and_infer_types();
  }

  void validate_and_infer_types() override {
    NODE_VALIDATION_CHECK(this, get_input_size() == 2, "expected two maps");
    const auto type = get_input_element_type(0);
    NODE_VALIDATION_CHECK(this, type == get_input_element_type(1), "the maps have different types");
    NODE_VALIDATION_CHECK(this, type == ov::element::f32 || type == ov::element::i8,
                          "got maps of ", type, "; expected float32 or int8");
    ov::PartialShape shape = get_input_partial_shape(0);
    NODE_VALIDATION_CHECK(this, ov::PartialShape::merge_into(shape, get_input_partial_shape(1)),
                          "the maps have different shapes");
    NODE_VALIDATION_CHECK(this, shape.rank().is_dynamic() || shape.size() == 4,
                          "a map has not the shape (N, C, H, W)");
    Problem problem = problem_;
    problem.channels = problem.groups;
    if (shape.rank().is_static() && shape[1].is_static()) problem.channels = shape[1].get_length();
    const char* reason = cclseg::misfit(problem);
    NODE_VALIDATION_CHECK(this, reason == nullptr, reason == nullptr ? "" : reason);
    if (shape.rank().is_static()) shape[1] = cclseg::window_size(problem);
    set_output_type(0, ov::element::f32, shape);
  }

  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& maps) const override {
    check_new_args_count(this, maps);
    return std::make_shared<LocalCorrelation>(maps, problem_);
  }

  bool visit_attributes(ov::AttributeVisitor& visitor) override {
    visitor.on_attribute("radius", problem_.radius);
    visitor.on_attribute("dilation", problem_.dilation);
    visitor.on_attribute("groups", problem_.groups);
    visitor.on_attribute("normalize", problem_.normalize);
    visitor.on_attribute("a_scale", problem_.a_scale);
    visitor.on_attribute("b_scale", problem_.b_scale);
    return true;
  }

  bool has_evaluate() const override { return true; }

  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
    const ov::Shape shape = inputs[0].get_shape();
    Problem problem = problem_;
    problem.type = inputs[0].get_element_type() == ov::element::i8 ? Type::kInt8 : Type::kFloat32;
    if (problem.type == Type::kFloat32) problem.a_scale = problem.b_scale = 1;
    problem.batch = shape[0];
    problem.channels = shape[1];
    problem.height = shape[2];
    problem.width = shape[3];
    const char* reason = cclseg::misfit(problem);
    OPENVINO_ASSERT(reason == nullptr, reason == nullptr ? "" : reason);
    OPENVINO_ASSERT(shape == inputs[1].get_shape(), "the maps have different shapes");
    outputs[0].set_shape(
        {shape[0], static_cast<size_t>(cclseg::window_size(problem)), shape[2], shape[3]});
    return cclseg::correlate(cclseg::best_kernel(), problem, inputs[0].data(), inputs[1].data(),
                             static_cast<float*>(outputs[0].data()), {run_on_threads, nullptr});
  }

 private:
  Problem problem_;
};

ov::OutputVector convert(const ov::frontend::NodeContext& node) {
  Problem problem;
  problem.radius = node.get_attribute<int64_t>("radius");
  problem.dilation = node.get_attribute<int64_t>("dilation", 1);
  problem.groups = node.get_attribute<int64_t>("groups", 1);
  problem.normalize = node.get_attribute<int64_t>("normalize", 0) != 0;
  problem.a_scale = node.get_attribute<float>("a_scale", 1.0f);
  problem.b_scale = node.get_attribute<float>("b_scale", 1.0f);
  const ov::OutputVector maps = {node.get_input(0), node.get_input(1)};
  return {std::make_shared<LocalCorrelation>(maps, problem)};
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>(
    {std::make_shared<ov::frontend::onnx::ConversionExtension>("LocalCorrelation", "cclseg",
                                                               convert),
     std::make_shared<ov::OpExtension<LocalCorrelation>>()}))
