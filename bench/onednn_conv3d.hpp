#pragma once

#include <memory>

#include "kernels/conv3d_choice.hpp"

namespace cinnabar::bench {

/// One pass of oneDNN's convolution in the layouts that oneDNN likes best; reordering into them and back is
/// not part of `run`. Float32 on the CPU, groups 1.
class OnednnConv3d {
 public:
  /// Copies the tensors that the pass reads.
  OnednnConv3d(Conv3dPass pass, const Tensor& input, const Tensor& weight, const Tensor& output,
               const Conv3dOptions& options);
  ~OnednnConv3d();
  OnednnConv3d(OnednnConv3d&&) noexcept;
  void run();
  /// What the last run wrote, as NCDHW.
  Tensor result() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cinnabar::bench
