#pragma once

#include "engine/host_device.hpp"
#include "kernels/op.hpp"
#include "kernels/random.hpp"

namespace cinnabar {

/// Dropout (Srivastava et al., JMLR 2014), scaled in training. Element i (row-major) is kept where number
/// offset + i of the Philox sequence, u in [0, 1), is at least p:
///   y = x / (1 - p) where kept, else 0
/// so p = 1 drops everything, and the mask depends on the sequence alone: not on the device, the dtype or the
/// number of threads. The gradient is the same map of grad_y, so no mask is stored. f32 and f64 on the CPU,
/// f32 on CUDA; y is assigned and may be x.
struct Dropout {
  void (*apply)(const RandomSequence& sequence, double p, const Tensor& x, Tensor& y);
};

CINNABAR_OP(Dropout, dropout);

/// What becomes of an element, given its number of the sequence.
template <class T>
struct DropoutMask {
  float threshold;
  T scale;  ///< 1 / (1 - p), 0 where p is 1

  CINNABAR_HD T apply(float unit, T value) const {
    const T kept = value * scale;
    return unit >= threshold ? kept : T(0);
  }
};

template <class T>
DropoutMask<T> dropout_mask(double p) {
  return {static_cast<float>(p), static_cast<T>(p < 1.0 ? 1.0 / (1.0 - p) : 0.0)};
}

/// Check p in [0, 1] and the offset, and the tensors too. Throw Error.
void check_dropout_sequence(const char* op, const RandomSequence& sequence, double p);
void check_dropout(const RandomSequence& sequence, double p, const Tensor& x, const Tensor& y);

}  // namespace cinnabar
