// Deformable convolution: columns are gathered into a workspace and multiplied with the weights by cuBLAS.
// Work split: one thread per output position, 256 a block; blockIdx.y walks taps, offset groups and images,
//   so that offsets, masks and columns are read and written along positions, and blockIdx.z pieces of the
//   offset group's channels where positions alone would leave the GPU idle. A thread locates its point once
//   and loops over channels. 2-D and 3-D are one template over the number of axes.
// Workspace: columns of whole images, or of a range of positions of one, up to DeformConvOptions.
// backward_sampling: the gradients of columns come from cuBLAS; one kernel sums them into those of offsets
//   and masks, a thread for each point, and another scatters them by fixed-point adds (fixed_point.cuh),
//   passing upper-x terms on to the next lane where that lies in the next cell, as grid_sample.cu does.
// Shared memory: none. Limiting resource: memory for the columns (8 bytes written and read a tap, position
//   and channel, 4 or 8 corners from L1), the L2 atomics for the scatter, fp32 arithmetic for the products.

#include "kernels/deform_conv.hpp"

#include <algorithm>
#include <optional>

#include "engine/divide_up.hpp"
#include "kernels/cuda/deform_conv_columns.cuh"
#include "kernels/cuda/vendor/blas.hpp"
#include "kernels/epilogue_math.hpp"

namespace cinnabar::cuda {
namespace {

constexpr const char* kOp = "deform_conv";
constexpr std::int64_t kThreads = 1 << 18;  // wanted in flight, where there are channels to divide

/// What a thread block's launch covers.
LaunchShape shape_of_launch(const Columns& columns, std::int64_t pieces) {
  LaunchShape shape = cover_rows(columns.count, columns.planes, kBlock);
  shape.grid.z = static_cast<unsigned>(pieces);
  return shape;
}

/// Whole images, or a range of positions of one.
struct Chunk {
  std::int64_t image;
  Columns columns;
  std::int64_t pieces;  ///< of an offset group's channels
};

Columns columns_of(const DeformConvShape& s, std::int64_t images, std::int64_t first, std::int64_t count) {
  const std::int64_t planes = images * s.offset_groups * s.taps();
  CINNABAR_CHECK(planes <= std::numeric_limits<std::int32_t>::max() &&
                     s.in_channels <= std::numeric_limits<std::int32_t>::max(),
                 kOp, "too many taps and channels: ", planes, " and ", s.in_channels);
  const std::int64_t channels = s.in_channels / s.offset_groups;
  const std::int64_t pieces =
      std::clamp<std::int64_t>(kThreads / (count * planes), 1, divide_up(channels, std::int64_t{8}));
  return {
      s, first, count, images, static_cast<unsigned>(planes), static_cast<int>(divide_up(channels, pieces))};
}

/// Calls visit(chunk) for chunks whose columns fit into the workspace, in a fixed order.
template <class Visit>
void for_each_chunk(const DeformConvShape& s, std::int64_t workspace_bytes, const Visit& visit) {
  const std::int64_t volume = s.out_volume();
  const std::int64_t fitting =
      std::max<std::int64_t>(workspace_bytes / static_cast<std::int64_t>(sizeof(float)) / s.rows(), 1);
  const std::int64_t images = std::clamp<std::int64_t>(fitting / volume, 1, s.batch);
  const std::int64_t positions = std::min(volume, divide_up(fitting, kBlock) * kBlock);
  for (std::int64_t image = 0; image < s.batch; image += images) {
    for (std::int64_t first = 0; first < volume; first += positions) {
      const Columns columns =
          columns_of(s, std::min(images, s.batch - image), first, std::min(positions, volume - first));
      visit(
          Chunk{image, columns, divide_up(s.in_channels / s.offset_groups, std::int64_t{columns.channels})});
    }
  }
}

std::int64_t size_of_columns(const DeformConvShape& s, std::int64_t workspace_bytes) {
  std::int64_t largest = 0;
  for_each_chunk(s, workspace_bytes, [&](const Chunk& chunk) {
    largest = std::max(largest, chunk.columns.images * s.rows() * chunk.columns.count);
  });
  return largest;
}

/// Elements from one image to the next of a tensor [N, ...].
std::int64_t image_size(const Tensor& tensor) {
  return tensor.numel() / tensor.shape(0);
}

const float* image_of(const Tensor& tensor, std::int64_t image) {
  return tensor.defined() ? tensor.data<float>() + image * image_size(tensor) : nullptr;
}

float* image_of(Tensor& tensor, std::int64_t image) {
  return tensor.defined() ? tensor.data<float>() + image * image_size(tensor) : nullptr;
}

void sample_columns(const Chunk& chunk, const Tensor& input, const Tensor& offset, const Tensor& mask,
                    Tensor& columns) {
  launch(
      kOp,
      chunk.columns.s.dims == 2 ? deform_conv_columns_point_kernel<2> : deform_conv_columns_point_kernel<3>,
      shape_of_launch(chunk.columns, chunk.pieces), input.device(), image_of(input, chunk.image),
      image_of(offset, chunk.image), image_of(mask, chunk.image), chunk.columns, columns.data<float>());
}

/// The products of one weight group and chunk: `image` [out][count] in steps of the output's volume, `weight`
/// [out][depth], `columns` [depth][count].
struct Product {
  std::int64_t out, depth, count, volume;
  std::int64_t image, weight, columns;               ///< where they start
  std::int64_t images, image_stride, column_stride;  ///< from image to image

  Product(const Chunk& chunk, std::int64_t group) {
    const DeformConvShape& s = chunk.columns.s;
    out = s.out_channels / s.groups;
    depth = s.depth();
    count = chunk.columns.count;
    volume = s.out_volume();
    image_stride = s.out_channels * volume;
    column_stride = s.rows() * count;
    image = chunk.image * image_stride + group * out * volume + chunk.columns.first;
    weight = group * out * depth;
    columns = group * depth * count;
    images = chunk.columns.images;
  }
};

void multiply_forward(const Chunk& chunk, const Tensor& weight, const Tensor& columns, Tensor& output) {
  for (std::int64_t group = 0; group < chunk.columns.s.groups; ++group) {
    const Product p(chunk, group);
    vendor::run(vendor::Gemm{.m = p.out,
                             .n = p.count,
                             .k = p.depth,
                             .batch = p.images,
                             .a = weight.data<float>() + p.weight,
                             .b = columns.data<float>() + p.columns,
                             .output = output.data<float>() + p.image,
                             .stride_b = p.column_stride,
                             .stride_output = p.image_stride,
                             .row_output = p.volume},
                output.device());
  }
}

void multiply_backward_columns(const Chunk& chunk, const Tensor& weight, const Tensor& grad_output,
                               Tensor& grad_columns) {
  for (std::int64_t group = 0; group < chunk.columns.s.groups; ++group) {
    const Product p(chunk, group);
    vendor::run(vendor::Gemm{.transpose_a = true,
                             .m = p.depth,
                             .n = p.count,
                             .k = p.out,
                             .batch = p.images,
                             .a = weight.data<float>() + p.weight,
                             .b = grad_output.data<float>() + p.image,
                             .output = grad_columns.data<float>() + p.columns,
                             .stride_b = p.image_stride,
                             .stride_output = p.column_stride,
                             .row_b = p.volume},
                weight.device());
  }
}

/// Assigns where the chunk is the first one, and adds otherwise, image by image.
void multiply_backward_weight(const Chunk& chunk, const Tensor& grad_output, const Tensor& columns,
                              Tensor& grad_weight) {
  for (std::int64_t group = 0; group < chunk.columns.s.groups; ++group) {
    const Product p(chunk, group);
    for (std::int64_t i = 0; i < p.images; ++i) {
      vendor::run(vendor::Gemm{.transpose_b = true,
                               .m = p.out,
                               .n = p.depth,
                               .k = p.count,
                               .a = grad_output.data<float>() + p.image + i * p.image_stride,
                               .b = columns.data<float>() + p.columns + i * p.column_stride,
                               .output = grad_weight.data<float>() + p.weight,
                               .row_a = p.volume,
                               .adds = chunk.image > 0 || chunk.columns.first > 0 || i > 0},
                  columns.device());
    }
  }
}

void forward(const Tensor& input, const Tensor& offset, const Tensor& mask, const Tensor& weight,
             const Epilogue& after, const DeformConvOptions& options, Tensor& output) {
  const DeformConvShape shape = deform_conv_shape(input, offset, mask, weight, output, options);
  require_dtype(kOp, input, DType::f32);
  check_epilogue(after, output);
  if (shape.batch == 0) return;
  Tensor columns =
      Tensor::empty({size_of_columns(shape, options.workspace_bytes)}, DType::f32, input.device());
  for_each_chunk(shape, options.workspace_bytes, [&](const Chunk& chunk) {
    sample_columns(chunk, input, offset, mask, columns);
    multiply_forward(chunk, weight, columns, output);
  });
  if (!epilogue_math<float>(after).does_nothing()) cuda::epilogue.forward(output, after, output);
}

void backward_weight(const Tensor& grad_output, const Tensor& input, const Tensor& offset, const Tensor& mask,
                     const DeformConvOptions& options, Tensor& grad_weight) {
  const DeformConvShape shape = deform_conv_shape(input, offset, mask, grad_weight, grad_output, options);
  require_dtype(kOp, input, DType::f32);
  if (shape.batch == 0) return grad_weight.fill(0.0);
  Tensor columns =
      Tensor::empty({size_of_columns(shape, options.workspace_bytes)}, DType::f32, input.device());
  for_each_chunk(shape, options.workspace_bytes, [&](const Chunk& chunk) {
    sample_columns(chunk, input, offset, mask, columns);
    multiply_backward_weight(chunk, grad_output, columns, grad_weight);
  });
}

const unsigned* bits_of(const Tensor& peak) {
  return peak.defined() ? reinterpret_cast<const unsigned*>(peak.data<std::int32_t>()) : nullptr;
}

/// Bit pattern of a bound of every term of the input's gradient.
Tensor find_bound(const DeformConvShape& shape, const Tensor& grad_output, const Tensor& weight,
                  const Tensor& mask) {
  const Tensor grad_peak = find_peak(kOp, grad_output), weight_peak = find_peak(kOp, weight);
  const Tensor mask_peak = mask.defined() ? find_peak(kOp, mask) : Tensor();
  Tensor bound = Tensor::empty_like(grad_peak);
  launch(kOp, deform_conv_bound_kernel, {dim3(1), dim3(32)}, weight.device(), bits_of(grad_peak),
         bits_of(weight_peak), bits_of(mask_peak), static_cast<float>(shape.out_channels / shape.groups),
         reinterpret_cast<unsigned*>(bound.data<std::int32_t>()));
  return bound;
}

/// Sums of the input's gradient for the images of one chunk after the other.
class InputSums {
 public:
  InputSums(const DeformConvShape& shape, std::int64_t images, Tensor bound)
      : sums_(Tensor::empty({images, shape.in_channels, shape.in_volume()}, DType::i64, bound.device())),
        bound_(std::move(bound)),
        scale_{fixed_point_bits(shape.out_volume() * shape.taps()), bits_of(bound_)} {}

  /// Adds a chunk, and writes the gradient of its images behind the last position.
  void add(const Chunk& chunk, const Tensor& grad_columns, const Tensor& offset, const Tensor& mask,
           Tensor& grad_input) {
    const Columns& columns = chunk.columns;
    Tensor sums = sums_.rows(0, columns.images);
    if (columns.first == 0) sums.fill(0.0);
    launch(kOp,
           columns.s.dims == 2 ? deform_conv_scatter_point_kernel<2> : deform_conv_scatter_point_kernel<3>,
           shape_of_launch(columns, chunk.pieces), offset.device(), grad_columns.data<float>(),
           image_of(offset, chunk.image), image_of(mask, chunk.image), columns, scale_,
           reinterpret_cast<long long*>(sums.data<std::int64_t>()));
    if (columns.first + columns.count < columns.s.out_volume()) return;
    Tensor gradient = grad_input.rows(chunk.image, columns.images);
    fixed_point_to_float(kOp, sums, scale_, gradient);
  }

 private:
  Tensor sums_, bound_;
  FixedPointScale scale_;
};

void differentiate_points(const Chunk& chunk, const Tensor& grad_columns, const Tensor& input,
                          const Tensor& offset, const Tensor& mask, Tensor& grad_offset, Tensor& grad_mask) {
  launch(
      kOp,
      chunk.columns.s.dims == 2 ? deform_conv_backward_point_kernel<2> : deform_conv_backward_point_kernel<3>,
      shape_of_launch(chunk.columns, 1), input.device(), grad_columns.data<float>(),
      image_of(input, chunk.image), image_of(offset, chunk.image), image_of(mask, chunk.image), chunk.columns,
      image_of(grad_offset, chunk.image), image_of(grad_mask, chunk.image));
}

void backward_sampling(const Tensor& grad_output, const Tensor& input, const Tensor& offset,
                       const Tensor& mask, const Tensor& weight, const DeformConvOptions& options,
                       Tensor& grad_input, Tensor& grad_offset, Tensor& grad_mask) {
  const DeformConvShape shape = deform_conv_backward_shape(grad_output, input, offset, mask, weight, options,
                                                           grad_input, grad_offset, grad_mask);
  require_dtype(kOp, input, DType::f32);
  if (shape.batch == 0) return;
  Tensor columns =
      Tensor::empty({size_of_columns(shape, options.workspace_bytes)}, DType::f32, input.device());
  std::optional<InputSums> sums;
  for_each_chunk(shape, options.workspace_bytes, [&](const Chunk& chunk) {
    multiply_backward_columns(chunk, weight, grad_output, columns);
    if (grad_offset.defined() || grad_mask.defined()) {
      differentiate_points(chunk, columns, input, offset, mask, grad_offset, grad_mask);
    }
    if (!grad_input.defined()) return;
    if (!sums) sums.emplace(shape, chunk.columns.images, find_bound(shape, grad_output, weight, mask));
    sums->add(chunk, columns, offset, mask, grad_input);
  });
}

}  // namespace

extern const DeformConv deform_conv;
const DeformConv deform_conv{forward, backward_weight, backward_sampling};

}  // namespace cinnabar::cuda
