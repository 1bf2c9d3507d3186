#pragma once

#include <array>

#include "kernels/field_shape.hpp"
#include "kernels/op.hpp"
#include "kernels/stencil.hpp"

namespace cinnabar {

/// Distance of neighbouring voxels along x, y, z, in the unit that the penalty is to have below the line.
using VoxelSpacing = std::array<double, 3>;

/// How much a field varies: the squared differences of neighbours, the discrete form of the diffusion
/// regulariser, the integral of |grad f|^2 (Fischer and Modersitzki, "Fast diffusion registration", 2002). On
/// A axes with more than one voxel,
///   loss = 1/A sum over these axes a of the mean of ((f[i + 1 along a] - f[i]) / spacing_a)^2,
/// each mean over all pairs of neighbours of all channels and batch entries. 0 where A is 0.
///
/// Shapes: field [N, C, D, H, W] in any unit, loss [] of its dtype. Sums are added in float64 in an order
/// fixed by the shape. f32 and f64 on the CPU, f32 on CUDA. Kernels assign their outputs; deterministic.
struct GradientPenalty {
  void (*forward)(const Tensor& field, const VoxelSpacing& spacing, Tensor& loss);
  /// grad_field = grad_loss times the slope of the loss, a gather over the neighbours.
  void (*backward)(const Tensor& grad_loss, const Tensor& field, const VoxelSpacing& spacing,
                   Tensor& grad_field);
};

CINNABAR_OP(GradientPenalty, gradient_penalty);

/// The call with channels read as batch entries: loss = scale * sum of weight_a (difference along a)^2. The
/// weights are of the order of 1 / spacing^2; 0 along axes of one voxel.
struct PenaltyCall {
  FieldShape shape;
  double weight[3];
  double scale;
};

/// Checks the tensors and the spacing. Throws Error. `beside` is the loss or its gradient.
PenaltyCall penalty_call(const Tensor& field, const VoxelSpacing& spacing, const Tensor& beside);

template <class T>
struct PenaltyWeights {
  T weight[3];

  explicit PenaltyWeights(const PenaltyCall& call)
      : weight{static_cast<T>(call.weight[0]), static_cast<T>(call.weight[1]),
               static_cast<T>(call.weight[2])} {}

  /// The weighted squares of the differences from the voxel f points to towards the next ones.
  CINNABAR_HD T squares(const Stencil<T>& near, const T* f) const {
    T sum = T(0);
    CINNABAR_UNROLL
    for (int axis = 0; axis < 3; ++axis) {
      const T difference = f[near.plus[axis]] - *f;
      sum += weight[axis] * difference * difference;
    }
    return sum;
  }

  /// Half the slope of the sum of all squares in that voxel.
  CINNABAR_HD T slope(const Stencil<T>& near, const T* f) const {
    T sum = T(0);
    CINNABAR_UNROLL
    for (int axis = 0; axis < 3; ++axis) {
      sum += weight[axis] * ((*f - f[near.minus[axis]]) + (*f - f[near.plus[axis]]));
    }
    return sum;
  }
};

}  // namespace cinnabar
