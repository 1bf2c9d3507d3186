#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "layers/linear.hpp"
#include "models/siamese.hpp"
#include "models/slice_training.hpp"

namespace cinnabar {

/// How slices are compared.
enum class MatchingLoss {
  contrastive,  ///< by the distance of their embeddings, which the contrastive loss forms
  correlation,  ///< by the correlation head: each place takes its best match nearby; cross entropy
};

/// "contrastive", "correlation".
const std::vector<std::string>& matching_loss_names();

struct SliceMatcherOptions {
  MatchingLoss loss = MatchingLoss::contrastive;
  std::vector<std::int64_t> channels{8, 16, 32, 64, 64};  ///< of the encoder's levels
  std::int64_t embedding = 16;
  std::int64_t radius = 1;  ///< pixels of the last level that matching places lie apart at most
  std::uint64_t seed = 0;   ///< of the initial weights
};

/// Tells by a Siamese network how alike two slices are. Children "siamese" and, where they are used, its
/// "scale", a linear layer from the mean cosine to a logit.
class SliceMatcher : public Module {
 public:
  explicit SliceMatcher(const SliceMatcherOptions& options);
  const SliceMatcherOptions& options() const { return options_; }

  /// The loss of all pairs of an image of a [Na, 1, H, W] and one of b [Nb, 1, H, W]: f32 [Na, Nb] `same` is
  /// 1 where they belong together, 0 where not and -1 where nothing is asked. Both kinds of pairs count a
  /// half.
  Variable loss(const Variable& a, const Variable& b, const Tensor& same);
  /// Of each image of a [Na, 1, H, W] from each of b [Nb, 1, H, W]: row by row, Na times Nb; less is more
  /// alike. Distances of embeddings, or 1 minus the mean cosine.
  std::vector<double> distances(const Tensor& a, const Tensor& b);

 private:
  /// Distances of embeddings, or mean cosines, [Na, Nb].
  Variable compared(const Variable& a, const Variable& b);

  const SliceMatcherOptions options_;
  Siamese siamese_;
  std::unique_ptr<Linear> scale_;  ///< of the correlation
};

/// To and from a .safetensors file that says in its metadata what the network is. Never leaves a half-written
/// file. Throw InputError naming the file.
void save_slice_matcher(const std::filesystem::path& path, const SliceMatcher& network);
std::unique_ptr<SliceMatcher> load_slice_matcher(const std::filesystem::path& path);

struct MatchingTrainingOptions {
  std::int64_t epochs = 10;      ///< each as many slices as there are
  std::int64_t batch_size = 16;  ///< slices, each of which is compared with the matches of all
  double learning_rate = 2e-3;   ///< of Adam, falling along half a cosine
  /// Slices that do not belong together are at least as many slices apart; nothing is asked of those between.
  double gap = 2.0;
  std::uint64_t seed = 0;  ///< of the pairs and of the warps
};

/// Trains a matcher on stacks of slices [N, 1, H, W] of several subjects, from the lowest to the highest at
/// equal distances. Slice i of N in one stack belongs to slice i (M - 1) / (N - 1) of M in another. A batch
/// is some slices and their matches in another subject each, and all of the former are compared with all of
/// the latter. Each image is warped at random. A single stack is paired with itself. What is computed
/// follows from options, data and weights alone.
class MatchingTraining {
 public:
  /// Network and warp must stay. Throws Error for stacks of a single slice.
  MatchingTraining(SliceMatcher& network, const std::vector<Tensor>& stacks, const RandomWarp& warp,
                   const MatchingTrainingOptions& options);

  /// Returns the mean loss.
  double epoch();
  std::int64_t epochs_done() const { return done_; }

 private:
  SliceMatcher& network_;
  std::vector<Tensor> stacks_;
  const RandomWarp& warp_;
  MatchingTrainingOptions options_;
  Adam adam_;
  Schedule schedule_;
  std::int64_t slices_ = 0;  ///< of all stacks
  std::int64_t done_ = 0, step_ = 0;
};

/// For each slice of each stack the most alike slice of each other one, and how far that is from the slice
/// at the same height.
struct MatchingScore {
  double error = 0.0;    ///< mean, in slices
  double within2 = 0.0;  ///< share of matches at most 2 slices away
  double within4 = 0.0;
};
using SliceDistances = std::function<std::vector<double>(const Tensor& a, const Tensor& b)>;
/// Stacks are warped first, always in the same way, each slice otherwise.
MatchingScore score_matching(const SliceDistances& distances, const std::vector<Tensor>& stacks,
                             const RandomWarp& warp);
/// What drawing a slice at random would score, on average.
MatchingScore chance_matching(const std::vector<Tensor>& stacks);
/// 1 minus the normalised cross-correlation of the images themselves: SliceDistances without a network.
std::vector<double> correlation_distances(const Tensor& a, const Tensor& b);

}  // namespace cinnabar
