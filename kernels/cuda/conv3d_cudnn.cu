// Convolution by NVIDIA's cuDNN (kernels/cuda/vendor/cudnn.hpp): the rival, and a fallback. The epilogue is a
// pass of its own, in place.

#include <limits>

#include "kernels/conv3d.hpp"
#include "kernels/cuda/conv3d_backends.hpp"
#include "kernels/cuda/vendor/cudnn.hpp"
#include "kernels/epilogue_math.hpp"

namespace cinnabar::cuda {
namespace {

constexpr const char* kOp = "conv3d";

int narrow(std::int64_t value) {
  CINNABAR_CHECK(value <= std::numeric_limits<int>::max(), kOp, value, " is too large for cuDNN");
  return static_cast<int>(value);
}

vendor::CudnnConvolution problem_of(const Tensor& image, const Conv3dShape& shape) {
  require_dtype(kOp, image, DType::f32);
  CINNABAR_CHECK(vendor::has_cudnn(), kOp, "built without cuDNN: take another backend");
  narrow(shape.groups * shape.in_channels * shape.in_volume());  // cuDNN's strides are ints
  narrow(shape.groups * shape.out_channels * shape.out_volume());
  vendor::CudnnConvolution problem{};
  problem.batch = narrow(shape.batch);
  problem.channels = narrow(shape.groups * shape.in_channels);
  problem.filters = narrow(shape.groups * shape.out_channels);
  problem.groups = narrow(shape.groups);
  for (std::size_t i = 0; i < 3; ++i) {
    const Conv3dAxis& axis = shape.axis[i];
    const std::int32_t positions =
        (axis.in + 2 * axis.padding - axis.dilation * (axis.kernel - 1) - 1) / axis.stride + 1;
    CINNABAR_CHECK(positions == axis.out, kOp, "cuDNN computes all ", positions,
                   " positions of an axis, not ", axis.out);
    problem.in[i] = axis.in;
    problem.out[i] = axis.out;
    problem.kernel[i] = axis.kernel;
    problem.stride[i] = axis.stride;
    problem.padding[i] = axis.padding;
    problem.dilation[i] = axis.dilation;
  }
  return problem;
}

void finish(const Epilogue& epilogue, Tensor& output) {
  if (!epilogue_math<float>(epilogue).does_nothing()) cuda::epilogue.forward(output, epilogue, output);
}

void forward(const Tensor& input, const Tensor& weight, const Epilogue& after, const Conv3dOptions& options,
             Tensor& output) {
  const Conv3dShape shape = conv3d_shape(input, weight, output, options);
  check_epilogue(after, output);
  const vendor::CudnnConvolution problem = problem_of(input, shape);
  if (output.numel() == 0) return;
  vendor::run(vendor::CudnnPass::forward, problem, input.data<float>(), weight.data<float>(),
              output.data<float>(), output.device());
  finish(after, output);
}

void backward_input(const Tensor& grad_output, const Tensor& weight, const Epilogue& after,
                    const Conv3dOptions& options, Tensor& grad_input) {
  const Conv3dShape shape = conv3d_shape(grad_input, weight, grad_output, options);
  check_epilogue(after, grad_input);
  const vendor::CudnnConvolution problem = problem_of(grad_output, shape);
  if (grad_input.numel() == 0) return;
  vendor::run(vendor::CudnnPass::backward_input, problem, grad_output.data<float>(), weight.data<float>(),
              grad_input.data<float>(), grad_input.device());
  finish(after, grad_input);
}

void backward_weight(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                     Tensor& grad_weight) {
  const Conv3dShape shape = conv3d_shape(input, grad_weight, grad_output, options);
  const vendor::CudnnConvolution problem = problem_of(input, shape);
  if (shape.batch == 0) return grad_weight.fill(0.0);
  vendor::run(vendor::CudnnPass::backward_weight, problem, grad_output.data<float>(), input.data<float>(),
              grad_weight.data<float>(), grad_weight.device());
}

}  // namespace

const Conv3d conv3d_cudnn{forward, backward_input, backward_weight};

}  // namespace cinnabar::cuda
