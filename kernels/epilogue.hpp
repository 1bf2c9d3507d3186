#pragma once

#include "kernels/op.hpp"
#include "kernels/random.hpp"

namespace cinnabar {

enum class Activation {
  none,
  relu,        ///< z where z > 0, else 0
  leaky_relu,  ///< z where z > 0, else slope z
  prelu,       ///< z where z > 0, else weight z: He et al., ICCV 2015
};

/// What follows a convolution or a product, in the pass that writes its result. For element i (row-major) of
/// channel c (axis 1):
///   z = x + bias[c],  a = activation(z),  y = a / (1 - dropout) where kept, else 0
/// Kept are the elements that Dropout (kernels/dropout.hpp) keeps for the same sequence, so the result has
/// the bits of the three ops one after another.
struct Epilogue {
  Tensor bias = {};  ///< [C], or undefined
  Activation activation = Activation::none;
  double slope = 0.01;           ///< of leaky_relu, at least 0
  Tensor weight = {};            ///< of prelu: [C] or [1]
  double dropout = 0.0;          ///< probability in [0, 1]
  RandomSequence sequence = {};  ///< of dropout
  Tensor before = {};  ///< where defined, z is written here too, in y's shape: prelu's gradient needs it
};

/// Tensors [N, C, ...]. f32 and f64 on the CPU, f32 on CUDA. Everything is assigned; sums are taken in an
/// order that follows from the shapes.
struct EpilogueKernels {
  /// y may be x.
  void (*forward)(const Tensor& x, const Epilogue& epilogue, Tensor& y);
  /// `saved` is z for prelu, y (or z) for the other activations, undefined for none. grad_x may be grad_y;
  /// grad_bias and grad_weight are undefined where they are not wanted. The gradient of prelu at z = 0 is
  /// the weight's.
  void (*backward)(const Tensor& grad_y, const Tensor& saved, const Epilogue& epilogue, Tensor& grad_x,
                   Tensor& grad_bias, Tensor& grad_weight);
};

CINNABAR_OP(EpilogueKernels, epilogue);

/// x as [batch, channels, inner].
struct EpilogueShape {
  std::int64_t batch = 0;
  std::int64_t channels = 0;
  std::int64_t inner = 0;
};

/// Check an epilogue of a result of y's shape, and the tensors of the functions above. Throw Error.
void check_epilogue(const Epilogue& epilogue, const Tensor& y);
EpilogueShape epilogue_shape(const Tensor& x, const Epilogue& epilogue, const Tensor& y);
EpilogueShape epilogue_backward_shape(const Tensor& grad_y, const Tensor& saved, const Epilogue& epilogue,
                                      const Tensor& grad_x, const Tensor& grad_bias,
                                      const Tensor& grad_weight);

}  // namespace cinnabar
