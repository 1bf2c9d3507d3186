#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "layers/optimizer.hpp"
#include "layers/sequential.hpp"

namespace cinnabar {

/// The tasks that convolutions fail at and CoordConv does not (Liu et al., "An intriguing failing of
/// convolutional neural networks and the CoordConv solution", NeurIPS 2018, sections 3 and 4.1).
enum class CoordTask {
  classify,  ///< from coordinates x, y to the pixel there: a softmax over all pixels
  regress,   ///< from an image of one bright pixel to its coordinates
};

enum class CoordLayer {
  plain,      ///< convolutions that get to see positions through their strides: the stronger plain network
  coordconv,  ///< the first layer is a CoordConvLayer, the others are convolutions of one tap
};

/// Which places are tested on: a quarter of all in both cases.
enum class CoordSplit {
  uniform,   ///< drawn at random
  quadrant,  ///< those in the upper right quadrant, none of which is ever seen in training
};

/// "classify", "regress"; "plain", "coordconv"; "uniform", "quadrant", in the order above.
const std::vector<std::string>& coord_task_names();
const std::vector<std::string>& coord_layer_names();
const std::vector<std::string>& coord_split_names();

/// Pixels x, y of an image.
struct CoordPlaces {
  std::vector<std::array<std::int64_t, 2>> training, test;
};

/// The places where a square of `square` pixels, an odd number, lies within an image of `side` pixels: 56^2 =
/// 3136 for the paper's 64 and 9. The seed is that of a uniform split.
CoordPlaces split_places(CoordSplit split, std::int64_t side = 64, std::int64_t square = 9,
                         std::uint64_t seed = 0);

struct CoordOptions {
  CoordTask task = CoordTask::classify;
  CoordLayer layer = CoordLayer::coordconv;
  std::int64_t side = 64;   ///< pixels of the image along both axes, a power of two
  std::uint64_t seed = 0;   ///< of the initial weights, and of the order in training
  std::int64_t epochs = 0;  ///< of the training; 0: 8 to regress; to classify 3 with CoordConv, 10 without
  std::int64_t batch_size = 16;
  double learning_rate = 0.0;  ///< of Adam, falling along half a cosine; 0: what suits the network
};

/// One of the four networks, task x layer. Coordinates run from -1 at the first to 1 at the last pixel.
class CoordNetwork : public Module {
 public:
  /// Throws Error where the side is no power of two from 8 to 256.
  explicit CoordNetwork(const CoordOptions& options);

  /// classify: coordinates [N, 2] to logits [N, side side], row y column x at side y + x.
  /// regress: images [N, 1, 1, side, side] to coordinates [N, 2].
  Variable forward(const Variable& x);

 private:
  const CoordOptions options_;
  Sequential body_, head_;
};

/// How well a network does on a list of places.
struct CoordScore {
  double right = 0.0;     ///< share of places that are told to the pixel (the nearest one, in regression)
  double distance = 0.0;  ///< from the places told to the true ones, mean, in pixels
};

/// A training, and the network that it made. What it computes follows from the options and places alone.
class CoordTraining {
 public:
  CoordTraining(const CoordOptions& options, const std::vector<std::array<std::int64_t, 2>>& places);

  /// One pass over the places; returns the mean loss.
  double epoch();
  std::int64_t epochs_done() const { return done_; }
  const CoordOptions& options() const { return options_; }  ///< with the defaults filled in
  CoordNetwork& network() { return network_; }

  /// The pixels that the network tells for these places.
  std::vector<std::array<double, 2>> told(const std::vector<std::array<std::int64_t, 2>>& places);
  CoordScore score(const std::vector<std::array<std::int64_t, 2>>& places);

 private:
  const CoordOptions options_;
  const std::vector<std::array<std::int64_t, 2>> places_;
  CoordNetwork network_;
  Adam adam_;
  Schedule schedule_;
  std::int64_t done_ = 0, step_ = 0;
};

}  // namespace cinnabar
