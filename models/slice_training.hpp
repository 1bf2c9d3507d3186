#pragma once

#include <string>
#include <vector>

#include "layers/optimizer.hpp"
#include "models/slice_classifier.hpp"

namespace cinnabar {

/// Images and what they show.
struct LabelledImages {
  Tensor images;  ///< f32 [N, 1, H, W]
  Tensor labels;  ///< i64 [N]
};

/// Random transformations of images, drawn anew for every image:
///   affine      rotations within 60 degrees, scales 0.75 to 1.33 with an aspect of up to 1.2, a little
///   shear,
///               shifts of up to 0.2 of half the image
///   homography  half of that, and perspective: the denominator varies by up to 0.35 across half the image
///   cpab        smooth CPAB fields of 4 x 4 boxes
///   none        nothing
class RandomWarp {
 public:
  /// Throws InputError that lists the names for an unknown one.
  RandomWarp(const std::string& name, const Shape& spatial);
  static const std::vector<std::string>& names();

  /// images o T, T by the numbers of that sequence; the same for the same sequence.
  Tensor operator()(const Tensor& images, std::uint64_t seed, std::uint64_t stream) const;

 private:
  Tensor parameters(std::int64_t count, std::uint64_t seed, std::uint64_t stream) const;

  std::string name_;
  std::unique_ptr<GridGenerator> generator_;  ///< none where nothing is to be done
};

/// What a network is taught.
enum class SliceTask {
  classify,  ///< the class of a warped image; how to transform it is the transformer's own affair
  align,     ///< to undo the warp: the mean squared difference between aligned() and the image before
};

struct SliceTrainingOptions {
  SliceTask task = SliceTask::classify;
  std::int64_t epochs = 60;
  std::int64_t batch_size = 32;
  double learning_rate = 2e-3;  ///< of Adam, falling along half a cosine
  std::uint64_t seed = 0;       ///< of the warps and of the order
};

/// Trains a network on images that are warped anew for every epoch. What it computes follows from the
/// options, the data and the network's weights alone.
class SliceTraining {
 public:
  /// Network and warp must stay.
  SliceTraining(SliceClassifier& network, const LabelledImages& data, const RandomWarp& warp,
                const SliceTrainingOptions& options);

  /// One pass over the data; returns the mean loss.
  double epoch();
  std::int64_t epochs_done() const { return done_; }

 private:
  SliceClassifier& network_;
  LabelledImages data_;
  const RandomWarp& warp_;
  SliceTrainingOptions options_;
  Adam adam_;
  Schedule schedule_;
  std::int64_t done_ = 0, step_ = 0;
};

/// What a network makes of images that are warped `rounds` times each, always in the same way.
struct SliceScore {
  double accuracy = 0.0;  ///< share of images whose class is right
  double near = 0.0;      ///< share whose class is right or a neighbour of it
  /// How much the images as the classifier sees them still depend on the warp: their variance over the rounds
  /// divided by their variance over rounds and images.
  double spread = 0.0;
  /// Root mean square difference between images after and before warp and transformer, divided by that
  /// between warped and original images: 0 where every warp is undone.
  double left = 0.0;
};
SliceScore score_slices(SliceClassifier& network, const LabelledImages& data, const RandomWarp& warp,
                        int rounds);

}  // namespace cinnabar
