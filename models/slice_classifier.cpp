#include "models/slice_classifier.hpp"

#include <algorithm>
#include <cstdlib>

#include "autograd/layout.hpp"
#include "layers/activation.hpp"
#include "layers/conv3d.hpp"
#include "layers/linear.hpp"
#include "models/ic_stn.hpp"
#include "models/network_description.hpp"

namespace cinnabar {

namespace {

constexpr const char* kMetadataKey = "slice_classifier";
constexpr std::int64_t kLargestNumber = 1 << 16;  ///< beyond it a number of a file is damaged

/// None for "none".
std::unique_ptr<Layer> make_transformer(const SliceClassifierOptions& options, Generator& weights) {
  const Shape spatial{options.side, options.side};
  const std::string& name = options.transformer;
  if (name == "none") return nullptr;
  if (name == "icstn" || name == "icstn-homography") {
    const char* warp = name == "icstn" ? "affine" : "homography";
    return std::make_unique<IcStn>(1, make_grid_generator(warp, spatial, options.grid), options.localisation,
                                   weights, options.recursions);
  }
  return std::make_unique<SpatialTransformer>(1, make_grid_generator(name, spatial, options.grid),
                                              options.localisation, weights);
}

nlohmann::json to_json(const SliceClassifierOptions& options) {
  return {{"transformer", options.transformer},
          {"side", options.side},
          {"classes", options.classes},
          {"width", options.width},
          {"recursions", options.recursions},
          {"control_points", options.grid.control_points},
          {"boxes", options.grid.boxes},
          {"lattice", options.grid.lattice},
          {"squarings", options.grid.squarings},
          {"localisation_channels", options.localisation.channels},
          {"localisation_hidden", options.localisation.hidden}};
}

std::int64_t number(const nlohmann::json& object, const char* key) {
  const auto value = object.at(key).get<std::int64_t>();
  if (value < 1 || value > kLargestNumber) fail_input("'", key, "' is ", value);
  return value;
}

SliceClassifierOptions options_from(const nlohmann::json& object) {
  SliceClassifierOptions options;
  options.transformer = object.at("transformer").get<std::string>();
  options.side = number(object, "side");
  options.classes = number(object, "classes");
  options.width = number(object, "width");
  options.recursions = static_cast<int>(number(object, "recursions"));
  options.grid.control_points = number(object, "control_points");
  options.grid.boxes = static_cast<std::int32_t>(number(object, "boxes"));
  options.grid.lattice = number(object, "lattice");
  options.grid.squarings = static_cast<int>(number(object, "squarings"));
  options.localisation.channels = object.at("localisation_channels").get<std::vector<std::int64_t>>();
  options.localisation.hidden = number(object, "localisation_hidden");
  return options;
}

}  // namespace

const std::vector<std::string>& slice_transformer_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all{"none"};
    const auto& grids = grid_generator_names();
    all.insert(all.end(), grids.begin(), grids.end());
    all.insert(all.end(), {"icstn", "icstn-homography"});
    return all;
  }();
  return names;
}

SliceClassifier::SliceClassifier(const SliceClassifierOptions& options) : options_(options) {
  CINNABAR_CHECK(options.side >= 8 && options.classes >= 2 && options.width >= 1, "slice_classifier",
                 "needs images of at least 8 pixels a side, 2 classes and a width of 1, got ", options.side,
                 ", ", options.classes, " and ", options.width);
  // Streams of their own: the classifier starts alike whatever is in front of it.
  Generator transformer_weights(options.seed, 0), weights(options.seed, 1);
  transformer_ = make_transformer(options, transformer_weights);
  if (transformer_ != nullptr) add_child("transformer", *transformer_);
  const std::int64_t width = options.width;
  std::int64_t in = 1, side = options.side;
  for (const std::int64_t out : {width, 2 * width, 4 * width}) {
    features_.add<Conv3dLayer>(in, out, conv_squares(3, 1, 2), weights);
    features_.add<PRelu>();
    in = out;
    side = (side + 1) / 2;
  }
  head_.add<Linear>(in * side * side, options.classes, weights);
  add_child("features", features_);
  add_child("head", head_);
}

Variable SliceClassifier::aligned(const Variable& images) {
  const Shape expected{images.shape()[0], 1, options_.side, options_.side};
  CINNABAR_CHECK(images.shape() == expected, "slice_classifier", "takes images [N, 1, ", options_.side, ", ",
                 options_.side, "], got ", images.value());
  return transformer_ == nullptr ? images : transformer_->forward(images);
}

Variable SliceClassifier::classified(const Variable& images) {
  return head_(reshape(features_(unsqueeze(images, 2)), {images.shape()[0], -1}));
}

Variable SliceClassifier::forward(const Variable& images) {
  return classified(aligned(images));
}

SliceClassifierOptions widened_plain(const SliceClassifierOptions& options) {
  const std::int64_t wanted = SliceClassifier(options).parameter_count();
  SliceClassifierOptions plain = options;
  plain.transformer = "none";
  const auto distance = [&](std::int64_t width) {
    plain.width = width;
    return std::abs(SliceClassifier(plain).parameter_count() - wanted);
  };
  std::int64_t width = options.width;
  while (distance(width + 1) < distance(width)) ++width;
  plain.width = width;
  return plain;
}

void save_slice_classifier(const std::filesystem::path& path, const SliceClassifier& network) {
  save_described(path, network, kMetadataKey, to_json(network.options()));
}

std::unique_ptr<SliceClassifier> load_slice_classifier(const std::filesystem::path& path) {
  return load_described(path, kMetadataKey, "cinnabar train stn", [](const nlohmann::json& description) {
    return std::make_unique<SliceClassifier>(options_from(description));
  });
}

}  // namespace cinnabar
