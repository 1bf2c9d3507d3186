#pragma once

#include <array>
#include <vector>

#include "layers/sequential.hpp"

namespace cinnabar {

struct SiameseOptions {
  std::int64_t in = 1;                         ///< channels of an image
  std::vector<std::int64_t> channels{16, 32};  ///< of the levels; each halves the extents but the first
  std::int64_t embedding = 16;                 ///< E, the numbers that stand for an image
  int axes = 3;                                ///< 2: images [N, C, 1, H, W]
  std::uint64_t seed = 0;                      ///< of the initial weights
};

/// Two encoders with shared weights (Bromley et al., "Signature verification using a siamese time delay
/// neural network", NIPS 1993): one network that sees both images of a pair. Levels are a convolution of 3
/// taps an axis and a leaky rectifier; an embedding is a linear map of the last level's mean over the image.
///
///   Siamese net({.in = 1});
///   const auto [a, b] = net.embeddings(first, second);
///   contrastive_loss(a, b, same).backward();
///
/// Children "encoder" and "head".
class Siamese : public Module {
 public:
  explicit Siamese(const SiameseOptions& options);

  struct Pair {
    Variable a, b;
  };
  /// Features [N, channels.back(), D', H', W'] of images [N, in, D, H, W]; every halving rounds up.
  Variable features(const Variable& images);
  /// Features of both images of each pair, in one pass over both.
  Pair features(const Variable& a, const Variable& b);
  /// Embeddings [N, E] of images, and of both images of each pair.
  Variable embedded(const Variable& images);
  Pair embeddings(const Variable& a, const Variable& b);
  /// The correlation head: products of the features of `a` and `b` at length one, cosines in -1 to 1, at most
  /// `radius` (D', H', W') apart; the channels are those of local_correlation (layers/correlation.hpp).
  Variable correlation(const Variable& a, const Variable& b, const std::array<std::int64_t, 3>& radius);
  /// The same of features that `features` returned.
  static Variable correlated(const Variable& a, const Variable& b, const std::array<std::int64_t, 3>& radius);
  /// Between all voxels of the features, as all_pairs_correlation has them.
  Variable correlation(const Variable& a, const Variable& b);

 private:
  void check_pair(const Variable& a, const Variable& b) const;

  const SiameseOptions options_;
  Sequential encoder_, head_;
};

/// The contrastive loss (Hadsell, Chopra and LeCun, CVPR 2006, eq. 4), the mean over the batch of
///   same d^2 / 2 + (1 - same) max(0, margin - d)^2 / 2,   d = |a - b|
/// for embeddings [N, E] and `same` [N], 1 for pairs that belong together and 0 for those that do not (the
/// paper's Y is 1 - same). At d = 0 the gradient of a pair that does not belong together is taken as 0.
Variable contrastive_loss(const Variable& a, const Variable& b, const Tensor& same, double margin = 1.0);

}  // namespace cinnabar
