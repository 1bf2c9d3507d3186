#include "bench/onednn_conv3d.hpp"

#include <dnnl.hpp>
#include <unordered_map>

namespace cinnabar::bench {

namespace {

using dnnl::memory;

memory::dims dims_of(const Shape& shape) {
  return {shape.begin(), shape.end()};
}

memory::desc any_layout(const Tensor& tensor) {
  return {dims_of(tensor.shape()), memory::data_type::f32, memory::format_tag::any};
}

memory::desc plain_layout(const Shape& shape) {
  return {dims_of(shape), memory::data_type::f32, memory::format_tag::abcde};
}

}  // namespace

struct OnednnConv3d::State {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::primitive primitive;
  std::unordered_map<int, memory> arguments;
  memory written;
  Shape written_shape;

  void copy(const memory& from, const memory& to) {
    memory source = from;
    memory target = to;
    dnnl::reorder(source, target).execute(stream, source, target);
    stream.wait();
  }
  memory read(const Tensor& tensor, const memory::desc& layout) {
    memory reordered(layout, engine);
    copy(memory(plain_layout(tensor.shape()), engine, const_cast<float*>(tensor.data<float>())), reordered);
    return reordered;
  }
  memory write(const Tensor& tensor, const memory::desc& layout) {
    written_shape = tensor.shape();
    return written = memory(layout, engine);
  }
};

OnednnConv3d::OnednnConv3d(Conv3dPass pass, const Tensor& input, const Tensor& weight, const Tensor& output,
                           const Conv3dOptions& options)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  const memory::desc in = any_layout(input), taps = any_layout(weight), out = any_layout(output);
  const memory::dims strides(options.stride.begin(), options.stride.end());
  const memory::dims padding(options.padding.begin(), options.padding.end());
  memory::dims dilation;
  for (const std::int64_t d : options.dilation) dilation.push_back(d - 1);
  const auto algorithm = dnnl::algorithm::convolution_direct;
  // Gradients ask for the primitive of the forward pass as a hint.
  const dnnl::convolution_forward::primitive_desc forward(
      {dnnl::prop_kind::forward_training, algorithm, in, taps, out, strides, dilation, padding, padding},
      s.engine);
  if (pass == Conv3dPass::forward) {
    s.primitive = dnnl::convolution_forward(forward);
    s.arguments = {{DNNL_ARG_SRC, s.read(input, forward.src_desc())},
                   {DNNL_ARG_WEIGHTS, s.read(weight, forward.weights_desc())},
                   {DNNL_ARG_DST, s.write(output, forward.dst_desc())}};
  } else if (pass == Conv3dPass::backward_input) {
    const dnnl::convolution_backward_data::primitive_desc backward(
        {algorithm, in, taps, out, strides, dilation, padding, padding}, s.engine, forward);
    s.primitive = dnnl::convolution_backward_data(backward);
    s.arguments = {{DNNL_ARG_DIFF_DST, s.read(output, backward.diff_dst_desc())},
                   {DNNL_ARG_WEIGHTS, s.read(weight, backward.weights_desc())},
                   {DNNL_ARG_DIFF_SRC, s.write(input, backward.diff_src_desc())}};
  } else {
    const dnnl::convolution_backward_weights::primitive_desc backward(
        {algorithm, in, taps, out, strides, dilation, padding, padding}, s.engine, forward);
    s.primitive = dnnl::convolution_backward_weights(backward);
    s.arguments = {{DNNL_ARG_DIFF_DST, s.read(output, backward.diff_dst_desc())},
                   {DNNL_ARG_SRC, s.read(input, backward.src_desc())},
                   {DNNL_ARG_DIFF_WEIGHTS, s.write(weight, backward.diff_weights_desc())}};
  }
}

OnednnConv3d::~OnednnConv3d() = default;
OnednnConv3d::OnednnConv3d(OnednnConv3d&&) noexcept = default;

void OnednnConv3d::run() {
  state_->primitive.execute(state_->stream, state_->arguments);
  state_->stream.wait();
}

Tensor OnednnConv3d::result() const {
  Tensor plain = Tensor::empty(state_->written_shape);
  state_->copy(state_->written, memory(plain_layout(plain.shape()), state_->engine, plain.data<float>()));
  return plain;
}

}  // namespace cinnabar::bench
