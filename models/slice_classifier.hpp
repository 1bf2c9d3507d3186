#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "layers/spatial_transformer.hpp"

namespace cinnabar {

/// The transformer in front of a classifier: "none", a name of make_grid_generator, "icstn" (affine) or
/// "icstn-homography".
const std::vector<std::string>& slice_transformer_names();

struct SliceClassifierOptions {
  std::string transformer = "affine";
  std::int64_t side = 48;  ///< pixels of an image along both axes
  std::int64_t classes = 10;
  std::int64_t width = 8;  ///< channels of the classifier's first convolution
  int recursions = 4;      ///< of an IC-STN
  std::uint64_t seed = 0;  ///< of the initial weights
  GridOptions grid = {};
  LocalisationOptions localisation = {};
};

/// From images [N, 1, side, side] to logits [N, classes]: a spatial transformer, then three convolutions of
/// stride 2 and a linear layer.
class SliceClassifier : public Layer {
 public:
  explicit SliceClassifier(const SliceClassifierOptions& options);
  Variable forward(const Variable& images) override;
  /// The images as the classifier sees them; without a transformer as they are.
  Variable aligned(const Variable& images);
  /// Logits of images that aligned() made.
  Variable classified(const Variable& images);
  const SliceClassifierOptions& options() const { return options_; }

 private:
  const SliceClassifierOptions options_;
  std::unique_ptr<Layer> transformer_;
  Sequential features_, head_;
};

/// The classifier without a transformer that has as nearly as possible the parameters of the given one: its
/// convolutions are widened.
SliceClassifierOptions widened_plain(const SliceClassifierOptions& options);

/// To and from a .safetensors file that says in its metadata what the network is. Never leaves a half-written
/// file. Throw InputError naming the file.
void save_slice_classifier(const std::filesystem::path& path, const SliceClassifier& network);
std::unique_ptr<SliceClassifier> load_slice_classifier(const std::filesystem::path& path);

}  // namespace cinnabar
