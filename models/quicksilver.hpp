#pragma once

#include <array>
#include <memory>
#include <vector>

#include "kernels/conv3d.hpp"
#include "layers/dropout.hpp"
#include "layers/sequential.hpp"

namespace cinnabar {

struct QuicksilverOptions {
  std::int64_t features = 64;  ///< F, the channels of the first block
  Shape patch{15, 15, 15};     ///< extents (d, h, w) of a patch, each at least 3
  double dropout = 0.0;        ///< 0.2 makes the probabilistic network
  std::uint64_t seed = 0;      ///< of the initial weights and of the dropout masks
  /// Of all convolutions; by_rule takes its place where fft or direct cannot compute a strided one.
  Conv3dBackend backend = Conv3dBackend::by_rule;
  /// Of the products of all convolutions, in forward and backward.
  Conv3dPrecision precision = Conv3dPrecision::fp32;
};

/// The network of Quicksilver (Yang et al., NeuroImage 2017, fig. 2): from patches of a moving and a target
/// image [N, 2, d, h, w] to those of the initial momentum [N, 3, d, h, w], components x, y, z. Two encoder
/// blocks per image halve the extents twice; one pair of decoder blocks per component brings them back.
/// Parameters have the names of the original program, "encoder_m_1.conv_input.weight"; the ones of
/// decoder_{x,y,z}_2.prelu4 exist there but are not used. The correction network is the same one on other
/// images.
class Quicksilver : public Layer {
 public:
  explicit Quicksilver(const QuicksilverOptions& options);
  ~Quicksilver() override;
  Variable forward(const Variable& patches) override;

  const QuicksilverOptions& options() const { return options_; }
  /// Keeps dropout on in evaluation, so that every forward is a sample of the posterior.
  void sample(bool on);

 private:
  class Block;

  const QuicksilverOptions options_;
  std::vector<std::unique_ptr<Block>> moving_, target_;          ///< two encoders each
  std::array<std::vector<std::unique_ptr<Block>>, 3> decoders_;  ///< two for each of x, y, z
};

}  // namespace cinnabar
