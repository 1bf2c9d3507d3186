#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/quicksilver_file.hpp"
#include "models/quicksilver_prediction.hpp"
#include "registration/pair_preparation.hpp"

namespace cinnabar::registration {

struct QuicksilverSettings {
  std::filesystem::path network;     ///< of the role prediction
  std::filesystem::path correction;  ///< of the role correction; empty: none
  int corrections = 2;               ///< times that the correction network is asked, each on what is left
  int samples = 50;                  ///< of a probabilistic network; 0 predicts once, without dropout
  std::uint64_t seed = 0;            ///< of the samples
  PredictionOptions patches;
  Conv3dPrecision precision = Conv3dPrecision::fp32;  ///< of the networks' convolutions
  Device device;
};

/// A file whose network took part.
struct NetworkFile {
  std::string role;
  std::filesystem::path path;
};

/// What the samples of a probabilistic network say of phi^-1, before correction and refinement.
struct DeformationSamples {
  Tensor mean;      ///< displacement [1, 3, D, H, W] in voxels, on the CPU
  Tensor variance;  ///< [1, 1, D, H, W] in squared voxels: the sum of the variances of the three components
  int kept = 0;
  int diverged = 0;  ///< left out
};

/// A predicted momentum, its geodesic, and how it came about.
struct MomentumPrediction {
  Tensor momentum;           ///< [1, 3, D, H, W]
  Flow flow;                 ///< of the momentum, at t = 1
  std::int64_t patches = 0;  ///< that the prediction network saw, once for each sample
  int corrections = 0;       ///< times that the correction network was asked
  double kept_length = 1.0;  ///< below 1 where the momentum was shortened until it could be shot
  std::optional<DeformationSamples> samples;
};

/// What a prediction tells while it runs; both may throw to stop it.
struct PredictionObserver {
  std::function<void(const std::string& stage)> stage;
  std::function<void(std::int64_t done, std::int64_t total)> patches;
};

/// The networks of Quicksilver at work on prepared pairs (Yang et al., NeuroImage 2017): the prediction
/// network, or the mean of its samples where it has dropout, and on top of it the correction network, which
/// sees the moving image and the fixed one pulled back by the predicted phi. It may be asked again for what
/// its own result leaves.
class QuicksilverPredictor {
 public:
  /// Loads the files. Throws InputError for a file that is not a network of its role, and for a correction
  /// network that was trained on another model of momenta.
  explicit QuicksilverPredictor(const QuicksilverSettings& settings);

  /// The model both networks were trained on.
  const MomentumModel& model() const { return prediction_.description.momenta; }
  std::vector<NetworkFile> files() const;
  int samples() const;  ///< 0 without dropout
  Conv3dPrecision precision() const { return settings_.precision; }

  /// Bytes a prediction on a grid holds at its peak.
  std::size_t peak_bytes(const Shape& grid) const;

  /// Whether a momentum that cannot be shot may be shortened until it can: an optimiser that goes on from it
  /// makes up for that. Otherwise it is an InputError.
  enum class Infeasible { refused, shortened };
  MomentumPrediction predict(const ImagePair& pair, Infeasible rule, const PredictionObserver& observer);

 private:
  void draw_samples(MomentumPredictor& predictor, MomentumPrediction& result);

  QuicksilverSettings settings_;
  LoadedQuicksilver prediction_;
  std::optional<LoadedQuicksilver> correction_;
};

}  // namespace cinnabar::registration
