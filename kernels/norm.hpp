#pragma once

#include <cstdint>

#include "engine/host_device.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// How a tensor is read as [images, channels, voxels] and which of its elements share a mean and a variance:
/// all images of a channel where across_images (batch norm: Ioffe and Szegedy, ICML 2015), else the channels
/// of one of `groups` equal groups in one image (group norm: Wu and He, ECCV 2018; instance norm with as many
/// groups as channels; layer norm with one group, one voxel and the normalised elements as channels).
struct NormShape {
  std::int64_t images = 0;
  std::int64_t channels = 0;
  std::int64_t voxels = 0;
  std::int64_t groups = 1;  ///< equal to channels where across_images
  bool across_images = false;

  CINNABAR_HD std::int64_t sets() const { return across_images ? channels : images * groups; }
  CINNABAR_HD std::int64_t set_size() const {
    return across_images ? images * voxels : channels / groups * voxels;
  }
  CINNABAR_HD std::int64_t set_of(std::int64_t image, std::int64_t channel) const {
    return across_images ? channel : image * groups + channel / (channels / groups);
  }
  /// Place of element e of a set in the tensor. Index must hold the number of elements: 32 bits where that is
  /// enough, because 64-bit division is a long routine on a GPU.
  template <class Index = std::int64_t>
  CINNABAR_HD std::int64_t element(std::int64_t set, std::int64_t e) const {
    if (!across_images) return set * set_size() + e;
    const auto image = static_cast<std::int64_t>(static_cast<Index>(e) / static_cast<Index>(voxels));
    return (image * channels + set) * voxels + e - image * voxels;
  }
};

/// y = (x - mean) / sqrt(variance + epsilon) * weight + bias with mean and variance per set, weight and bias
/// per channel (or undefined). x, y and gradients have images * channels * voxels elements, weight and bias
/// `channels`, mean and variance [sets]: f64 from `statistics` on both devices, or given in x's dtype.
/// Variances divide by the size of the set.
/// Sums are added in float64 in an order fixed by the shape. f32 and f64 on the CPU, f32 on CUDA. Kernels
/// assign their outputs; grad_x, or grad_weight and grad_bias, may be undefined and are then left out.
struct Norm {
  void (*statistics)(const Tensor& x, const NormShape& shape, Tensor& mean, Tensor& variance);
  /// running = (1 - momentum) running + momentum batch, where the batch's variance divides by one less than
  /// its size. The running ones are of x's dtype; changed in place. `batches`, i64 of one element or
  /// undefined, grows by 1. Across images only.
  void (*update_running)(const Tensor& mean, const Tensor& variance, double momentum, const NormShape& shape,
                         Tensor& running_mean, Tensor& running_variance, Tensor& batches);
  void (*forward)(const Tensor& x, const Tensor& mean, const Tensor& variance, const Tensor& weight,
                  const Tensor& bias, double epsilon, const NormShape& shape, Tensor& y);
  /// With g = grad_y * weight and z = (x - mean) / deviation:
  ///   grad_x = (g - mean of g - z mean of (g z)) / deviation, the means over the set,
  ///   or g / deviation where the statistics are constants (evaluation);
  ///   grad_weight = sum of grad_y z, grad_bias = sum of grad_y.
  void (*backward)(const Tensor& grad_y, const Tensor& x, const Tensor& mean, const Tensor& variance,
                   const Tensor& weight, double epsilon, bool constant_statistics, const NormShape& shape,
                   Tensor& grad_x, Tensor& grad_weight, Tensor& grad_bias);
};

CINNABAR_OP(Norm, norm);

/// x - mean with the mean kept to twice the elements' precision: images far from 0 lose nothing.
template <class T>
struct NormCenter {
  T high;
  T low;

  NormCenter() = default;
  CINNABAR_HD explicit NormCenter(double mean)
      : high(static_cast<T>(mean)), low(static_cast<T>(mean - static_cast<double>(high))) {}
  CINNABAR_HD T operator()(T x) const { return (x - high) - low; }
};

/// The new running value; `correction` is 1 for a mean, n / (n - 1) for a variance.
template <class T>
CINNABAR_HD T norm_running_value(T running, double batch, double momentum, double correction) {
  return static_cast<T>((1.0 - momentum) * static_cast<double>(running) + momentum * batch * correction);
}

/// Checks of the calls above. Throw Error.
void check_norm_statistics(const Tensor& x, const NormShape& shape, const Tensor& mean,
                           const Tensor& variance);
void check_norm_update(const Tensor& mean, const Tensor& variance, double momentum, const NormShape& shape,
                       const Tensor& running_mean, const Tensor& running_variance, const Tensor& batches);
void check_norm_forward(const Tensor& x, const Tensor& mean, const Tensor& variance, const Tensor& weight,
                        const Tensor& bias, double epsilon, const NormShape& shape, const Tensor& y);
void check_norm_backward(const Tensor& grad_y, const Tensor& x, const Tensor& mean, const Tensor& variance,
                         const Tensor& weight, double epsilon, const NormShape& shape, const Tensor& grad_x,
                         const Tensor& grad_weight, const Tensor& grad_bias);

}  // namespace cinnabar
