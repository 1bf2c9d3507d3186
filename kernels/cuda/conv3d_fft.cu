// Convolution by whole-volume transforms, as on the CPU (kernels/cpu/conv3d_fft.cpp): spectra of the
// zero-padded images, one complex matrix product over the channels per frequency, one transform back.
// Transforms are cuFFT's and products cuBLAS's (kernels/cuda/vendor); the kernels here bring data into their
// layouts. The weights' spectra come from the taps axis by axis: a short sum for every frequency along D,
// then along H, then along W. Their gradient runs the same kernel backwards. They exist for some planes of
// frequencies along D at a time, and the images' spectra for some images, so that scratch memory stays
// bounded. Work split: a thread owns a voxel, an element, or one pair of channels and 8 results of an axis's
// sum. Shared memory: 8.4 KB for transposing. Limiting resource: memory (about 20 passes over a layer's
// activations), and arithmetic of the complex products where batch and channels are many.

#include "kernels/conv3d.hpp"

#include <algorithm>

#include "engine/divide_up.hpp"
#include "kernels/cuda/conv3d_backends.hpp"
#include "kernels/cuda/conv3d_spectra.cuh"
#include "kernels/cuda/vendor/blas.hpp"
#include "kernels/cuda/vendor/fft.hpp"
#include "kernels/smooth_number.hpp"

namespace cinnabar::cuda {
namespace {

constexpr const char* kOp = "conv3d";
constexpr std::int64_t kImageBytes = std::int64_t{1} << 30;   // of the images' scratch memory
constexpr std::int64_t kWeightBytes = std::int64_t{1} << 28;  // of the weights' spectra
constexpr std::int64_t kProductImages =
    32;  // of a product, always: cuBLAS rounds differently where extents differ

Tensor complex_scratch(std::int64_t count, Device device) {
  return Tensor::empty({count, 2}, DType::f32, device);
}

Complex* complex(Tensor& tensor) {
  return reinterpret_cast<Complex*>(tensor.data<float>());
}

/// to [columns][rows] = from [rows][columns], each with a distance from row to row.
void transpose(const Complex* from, std::int64_t from_pitch, std::int64_t rows, std::int64_t columns,
               Device device, std::int64_t to_pitch, Complex* to) {
  LaunchShape shape = cover_rows(columns, (rows + kTile - 1) / kTile, kTile);
  shape.block = dim3(kTile, kTileRows);
  launch(kOp, conv3d_transpose_tile_kernel, shape, device, from, from_pitch, rows, columns, to_pitch, to);
}

/// Transforms along one axis: out[a][j][b] = sum over i of in[a][i][b] factor[i][j].
struct AxisSum {
  std::int64_t outer, inputs, outputs, inner;
};

void sum_axis(const AxisSum& s, const Complex* from, const Tensor& factors, bool add, Complex* to) {
  LaunchShape shape = cover_rows(s.inner, s.outer, kBlock);
  shape.grid.z = static_cast<unsigned>((s.outputs + kOutputs - 1) / kOutputs);
  launch(kOp, conv3d_sum_axis_kernel, shape, factors.device(), from,
         reinterpret_cast<const Complex*>(factors.data<float>()), s.outer, s.inputs, s.outputs, s.inner, add,
         to);
}

/// A convolution by transforms: its grid and how it is cut into images and planes.
class Transforms {
 public:
  Transforms(const Tensor& image, const Conv3dShape& shape) : s_(shape), device_(image.device()) {
    require_dtype(kOp, image, DType::f32);
    CINNABAR_CHECK(conv3d_is_eligible(Conv3dBackend::fft, device_, shape), kOp,
                   "the fft backend needs stride 1 and dilation 1 on every axis");
    for (int i = 0; i < 3; ++i) {
      const Conv3dAxis& axis = s_.axis[i];
      grid_.extent[i] = static_cast<std::int32_t>(
          next_smooth_number(std::max({axis.in + axis.padding, axis.out, axis.kernel})));
    }
    pairs_ = s_.groups * s_.out_channels * s_.in_channels;
    const std::int64_t channels = s_.groups * (s_.in_channels + s_.out_channels);
    const std::int64_t image_bytes = channels * (grid_.voxels() * 4 + grid_.frequencies() * 16);
    images_ = std::clamp<std::int64_t>(kImageBytes / image_bytes, 1, std::max<std::int64_t>(1, s_.batch));
    const std::int64_t plane_bytes = plane() * pairs_ * 8;
    planes_ = std::clamp<std::int64_t>(kWeightBytes / plane_bytes, 1, grid_.extent[0]);
  }

  /// output = epilogue(input * weight), or with `backwards` grad_input from grad_output.
  void run(const Tensor& source, const Tensor& weight, const Epilogue& epilogue, bool backwards,
           Tensor& target) const {
    const Side from = side(backwards), to = side(!backwards);
    const Tensor by_depth = weights_by_depth(weight, backwards ? -1 : 1);
    Tensor spectra = complex_scratch(planes_ * plane() * pairs_, device_);
    for (std::int64_t first = 0; first < s_.batch; first += images_) {
      const std::int64_t images = std::min(images_, s_.batch - first);
      const Tensor in = read(source, from, first, images);
      Tensor out =
          complex_scratch(grid_.frequencies() * image_rows(images) * s_.groups * to.channels, device_);
      for (std::int64_t d = 0; d < grid_.extent[0]; d += planes_) {
        const std::int64_t planes = std::min(planes_, grid_.extent[0] - d);
        fill_weight_spectra(by_depth, d, planes, backwards ? -1 : 1, spectra);
        multiply(in, from.channels, spectra, to.channels, images, d * plane(), planes * plane(), backwards,
                 out);
      }
      write(out, to, first, images, epilogue, backwards, target);
    }
  }

  void backward_weight(const Tensor& grad_output, const Tensor& input, Tensor& grad_weight) const {
    const std::int64_t kd = s_.axis[0].kernel, kh = s_.axis[1].kernel, kw = s_.axis[2].kernel;
    const Side in = side(false), out = side(true);
    const Tensor depth = factors(0, s_.axis[0].padding, 1, true);
    const Tensor height = factors(1, s_.axis[1].padding, 1, true);
    const Tensor width = factors(2, s_.axis[2].padding, 1, true);
    Tensor spectra = complex_scratch(planes_ * plane() * pairs_, device_);
    Tensor rows = complex_scratch(planes_ * grid_.extent[1] * kw * pairs_, device_);
    Tensor by_depth = complex_scratch(grid_.extent[0] * kh * kw * pairs_, device_);
    for (std::int64_t first = 0; first < s_.batch; first += images_) {
      const std::int64_t images = std::min(images_, s_.batch - first);
      const Tensor x = read(input, in, first, images);
      const Tensor y = read(grad_output, out, first, images);
      for (std::int64_t d = 0; d < grid_.extent[0]; d += planes_) {
        const std::int64_t planes = std::min(planes_, grid_.extent[0] - d);
        multiply_pairs(y, x, images, d * plane(), planes * plane(), spectra);
        sum_axis({planes * grid_.extent[1], grid_.half(), kw, pairs_}, complex(spectra), width, false,
                 complex(rows));
        sum_axis({planes, grid_.extent[1], kh, kw * pairs_}, complex(rows), height, first > 0,
                 complex(by_depth) + d * kh * kw * pairs_);
      }
    }
    Tensor taps = complex_scratch(kd * kh * kw * pairs_, device_);
    sum_axis({1, grid_.extent[0], kd, kh * kw * pairs_}, complex(by_depth), depth, false, complex(taps));
    launch(kOp, conv3d_unpack_taps_kernel, cover(pairs_ * s_.taps(), kBlock), device_, complex(taps), pairs_,
           s_.taps(), 1.0f / static_cast<float>(grid_.voxels()), grad_weight.data<float>());
  }

 private:
  /// The channels and extents of the convolution's input or output.
  struct Side {
    std::int64_t channels;  ///< of a group
    Extent3 extent;
    std::int64_t volume() const { return std::int64_t{extent.d} * extent.h * extent.w; }
  };

  Side side(bool output) const {
    if (output) return {s_.out_channels, {s_.axis[0].out, s_.axis[1].out, s_.axis[2].out}};
    return {s_.in_channels, {s_.axis[0].in, s_.axis[1].in, s_.axis[2].in}};
  }
  /// Rows of images' spectra, so that they can be multiplied kProductImages at a time; those beyond the
  /// images hold anything, and so do their products.
  static std::int64_t image_rows(std::int64_t images) {
    return divide_up(images, kProductImages) * kProductImages;
  }
  /// Frequencies of one plane along D.
  std::int64_t plane() const { return grid_.extent[1] * grid_.half(); }

  /// Factors e^(i sign 2 pi f (k - shift) / n) as [kernel][frequencies], or [frequencies][kernel] where
  /// `sums_frequencies`; along W only half of those, which then count for their conjugates too.
  Tensor factors(int axis, std::int32_t shift, int sign, bool sums_frequencies) const {
    const std::int64_t count = axis == 2 ? grid_.half() : grid_.extent[axis];
    const std::int64_t kernel = s_.axis[axis].kernel;
    Tensor result = complex_scratch(count * kernel, device_);
    launch(kOp, conv3d_factors_element_kernel, cover(count * kernel, kBlock), device_, grid_.extent[axis],
           static_cast<std::int32_t>(kernel), static_cast<std::int32_t>(count), shift, sign, sums_frequencies,
           axis == 2, complex(result));
    return result;
  }

  /// The weights as [frequencies along D][taps along H, W][group, out, in].
  Tensor weights_by_depth(const Tensor& weight, int sign) const {
    Tensor taps = complex_scratch(s_.taps() * pairs_, device_);
    launch(kOp, conv3d_pack_taps_kernel, cover(taps.shape(0), kBlock), device_, weight.data<float>(), pairs_,
           s_.taps(), complex(taps));
    const std::int64_t inner = std::int64_t{s_.axis[1].kernel} * s_.axis[2].kernel * pairs_;
    Tensor result = complex_scratch(grid_.extent[0] * inner, device_);
    sum_axis({1, s_.axis[0].kernel, grid_.extent[0], inner}, complex(taps), factors(0, 0, sign, false), false,
             complex(result));
    return result;
  }

  /// Spectra [planes from d on][group, out, in].
  void fill_weight_spectra(const Tensor& by_depth, std::int64_t d, std::int64_t planes, int sign,
                           Tensor& spectra) const {
    const std::int64_t kh = s_.axis[1].kernel, kw = s_.axis[2].kernel;
    Tensor all = by_depth;
    Tensor rows = complex_scratch(planes * grid_.extent[1] * kw * pairs_, device_);
    sum_axis({planes, kh, grid_.extent[1], kw * pairs_}, complex(all) + d * kh * kw * pairs_,
             factors(1, 0, sign, false), false, complex(rows));
    sum_axis({planes * grid_.extent[1], kw, grid_.half(), pairs_}, complex(rows), factors(2, 0, sign, false),
             false, complex(spectra));
  }

  /// Spectra [frequencies][image_rows(images)][groups, channels] of images [first, first + images).
  Tensor read(const Tensor& source, const Side& from, std::int64_t first, std::int64_t images) const {
    const std::int64_t volumes = images * s_.groups * from.channels;
    Tensor padded = Tensor::empty({volumes, grid_.voxels()}, DType::f32, device_);
    launch(kOp, conv3d_pad_voxel_kernel, cover_rows(grid_.voxels(), volumes, kBlock), device_,
           source.data<float>() + first * s_.groups * from.channels * from.volume(), from.extent, grid_,
           volumes, padded.data<float>());
    Tensor by_volume = complex_scratch(volumes * grid_.frequencies(), device_);
    vendor::fft_forward(device_, fft_shape(volumes), padded.data<float>(), by_volume.data<float>());
    const std::int64_t pitch = image_rows(images) * s_.groups * from.channels;
    Tensor result = complex_scratch(pitch * grid_.frequencies(), device_);
    transpose(complex(by_volume), grid_.frequencies(), volumes, grid_.frequencies(), device_, pitch,
              complex(result));
    return result;
  }

  void write(Tensor& spectra, const Side& to, std::int64_t first, std::int64_t images,
             const Epilogue& epilogue, bool backwards, Tensor& target) const {
    const std::int64_t volumes = images * s_.groups * to.channels;
    Tensor by_volume = complex_scratch(volumes * grid_.frequencies(), device_);
    transpose(complex(spectra), image_rows(images) * s_.groups * to.channels, grid_.frequencies(), volumes,
              device_, grid_.frequencies(), complex(by_volume));
    Tensor real = Tensor::empty({volumes, grid_.voxels()}, DType::f32, device_);
    vendor::fft_inverse(device_, fft_shape(volumes), by_volume.data<float>(), real.data<float>());
    // Output o is the circular result at o - padding, input i that at i + padding.
    Extent3 shift{};
    std::int32_t* shifts[] = {&shift.d, &shift.h, &shift.w};
    for (int i = 0; i < 3; ++i) {
      *shifts[i] = backwards ? s_.axis[i].padding : grid_.extent[i] - s_.axis[i].padding;
    }
    launch(kOp, conv3d_crop_voxel_kernel, cover_rows(to.volume(), volumes, kBlock), device_,
           real.data<float>(), grid_, shift, to.extent, first * s_.groups * to.channels, volumes,
           s_.groups * to.channels, 1.0f / static_cast<float>(grid_.voxels()), epilogue_math<float>(epilogue),
           target.data<float>());
  }

  vendor::FftShape fft_shape(std::int64_t volumes) const {
    return {volumes, grid_.extent[0], grid_.extent[1], grid_.extent[2]};
  }

  /// to[f] = from[f] times the weights' matrices of `count` frequencies from `first` on.
  void multiply(const Tensor& from, std::int64_t from_channels, Tensor& weights, std::int64_t to_channels,
                std::int64_t images, std::int64_t first, std::int64_t count, bool backwards,
                Tensor& to) const {
    vendor::ComplexGemm product;
    product.transpose_b = !backwards;
    product.m = kProductImages;
    product.n = to_channels;
    product.k = from_channels;
    product.batch = count;
    product.row_a = s_.groups * from_channels;
    product.row_b = s_.in_channels;
    product.row_output = s_.groups * to_channels;
    product.stride_a = image_rows(images) * product.row_a;
    product.stride_b = pairs_;
    product.stride_output = image_rows(images) * product.row_output;
    for (std::int64_t g = 0; g < s_.groups; ++g) {
      product.b = weights.data<float>() + 2 * (g * s_.out_channels * s_.in_channels);
      for (std::int64_t n = 0; n < images; n += kProductImages) {
        product.a =
            from.data<float>() + 2 * (first * product.stride_a + n * product.row_a + g * from_channels);
        product.output =
            to.data<float>() + 2 * (first * product.stride_output + n * product.row_output + g * to_channels);
        vendor::run(product, device_);
      }
    }
  }

  /// spectra[f][group, out, in] = sum over images of conj(y[f][n][out]) x[f][n][in].
  void multiply_pairs(const Tensor& y, const Tensor& x, std::int64_t images, std::int64_t first,
                      std::int64_t count, Tensor& spectra) const {
    vendor::ComplexGemm product;
    product.conjugate_transpose_a = true;
    product.m = s_.out_channels;
    product.n = s_.in_channels;
    product.k = images;
    product.batch = count;
    product.row_a = s_.groups * s_.out_channels;
    product.row_b = s_.groups * s_.in_channels;
    product.row_output = s_.in_channels;
    product.stride_a = image_rows(images) * product.row_a;
    product.stride_b = image_rows(images) * product.row_b;
    product.stride_output = pairs_;
    for (std::int64_t g = 0; g < s_.groups; ++g) {
      product.a = y.data<float>() + 2 * (first * product.stride_a + g * s_.out_channels);
      product.b = x.data<float>() + 2 * (first * product.stride_b + g * s_.in_channels);
      product.output = spectra.data<float>() + 2 * (g * s_.out_channels * s_.in_channels);
      vendor::run(product, device_);
    }
  }

  Conv3dShape s_;
  Device device_;
  SpectrumExtent grid_{};
  std::int64_t pairs_ = 0;
  std::int64_t images_ = 1;
  std::int64_t planes_ = 1;
};

void forward(const Tensor& input, const Tensor& weight, const Epilogue& epilogue,
             const Conv3dOptions& options, Tensor& output) {
  const Conv3dShape shape = conv3d_shape(input, weight, output, options);
  check_epilogue(epilogue, output);
  const Transforms transforms(input, shape);
  if (output.numel() > 0) transforms.run(input, weight, epilogue, false, output);
}

void backward_input(const Tensor& grad_output, const Tensor& weight, const Epilogue& epilogue,
                    const Conv3dOptions& options, Tensor& grad_input) {
  const Conv3dShape shape = conv3d_shape(grad_input, weight, grad_output, options);
  check_epilogue(epilogue, grad_input);
  const Transforms transforms(grad_output, shape);
  if (grad_input.numel() > 0) transforms.run(grad_output, weight, epilogue, true, grad_input);
}

void backward_weight(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                     Tensor& grad_weight) {
  const Conv3dShape shape = conv3d_shape(input, grad_weight, grad_output, options);
  const Transforms transforms(input, shape);
  if (shape.batch == 0) return grad_weight.fill(0.0);
  transforms.backward_weight(grad_output, input, grad_weight);
}

}  // namespace

const Conv3d conv3d_fft{forward, backward_input, backward_weight};

}  // namespace cinnabar::cuda
