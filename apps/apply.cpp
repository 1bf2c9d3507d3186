#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/commands.hpp"
#include "apps/points_file.hpp"
#include "engine/error.hpp"
#include "registration/nifti.hpp"
#include "registration/nifti_header.hpp"
#include "registration/transform_chain.hpp"

namespace cinnabar::apps {

namespace {

using namespace cinnabar::registration;

enum class Kind { linear, nearest, label };

struct ApplyOptions {
  std::string image;
  std::string points;
  std::string points_space = "ras";
  std::string reference;
  std::vector<std::string> transforms;
  Kind interpolation = Kind::linear;
  double outside = 0.0;
  std::string type = "auto";
  std::string output;
};

const std::map<std::string, Kind> kInterpolations{
    {"linear", Kind::linear}, {"nearest", Kind::nearest},    {"nearestneighbor", Kind::nearest},
    {"label", Kind::label},   {"genericlabel", Kind::label}, {"multilabel", Kind::label}};

const std::map<std::string, VoxelType> kTypes{{"uint8", VoxelType::u8},    {"int8", VoxelType::i8},
                                              {"int16", VoxelType::i16},   {"uint16", VoxelType::u16},
                                              {"int32", VoxelType::i32},   {"uint32", VoxelType::u32},
                                              {"int64", VoxelType::i64},   {"uint64", VoxelType::u64},
                                              {"float32", VoxelType::f32}, {"float64", VoxelType::f64}};

/// "FILE" or "[FILE,0]" or, to use the inverse, "[FILE,1]".
void append_transform(TransformChain& chain, const std::string& word) {
  if (!word.starts_with('[')) return chain.append_file(word);
  const std::size_t comma = word.rfind(',');
  const std::string flag = comma == std::string::npos ? "" : word.substr(comma + 1);
  if (flag != "0]" && flag != "1]") {
    throw CLI::ValidationError("--transform", "'" + word + "' should be FILE or [FILE,1]");
  }
  chain.append_file(word.substr(1, comma - 1), flag == "1]");
}

void apply_to_points(const ApplyOptions& options, const TransformChain& chain) {
  PointTable table = read_points(options.points);
  const double sign = options.points_space == "lps" ? -1.0 : 1.0;
  for (Point& point : table.points) {
    const Point mapped = chain.map({sign * point[0], sign * point[1], point[2]});
    point = {sign * mapped[0], sign * mapped[1], mapped[2]};
  }
  write_points(options.output, table);
  if (!common_options().quiet) {
    std::printf("wrote %s: %zu points\n", options.output.c_str(), table.points.size());
  }
}

void require_outside_value(const ApplyOptions& options) {
  const double value = options.outside;
  const bool label = options.interpolation == Kind::label;
  const double largest = label ? 2147483647.0 : double{std::numeric_limits<float>::max()};
  if (std::abs(value) <= largest && (!label || value == std::trunc(value))) return;
  throw CLI::ValidationError("--outside", label ? "labels are whole numbers of 32 bits"
                                                : "give a finite number of single precision");
}

void apply_to_image(const ApplyOptions& options, const TransformChain& chain) {
  require_outside_value(options);
  const Geometry reference = read_geometry(options.reference);
  const bool chosen = options.type != "auto";
  if (options.interpolation == Kind::label) {
    const LabelImage warped = resample(read_labels(options.image), reference, chain, LabelInterpolation::vote,
                                       static_cast<std::int32_t>(options.outside));
    if (chosen) {
      write_labels(options.output, warped, kTypes.at(options.type));
    } else {
      write_labels(options.output, warped);
    }
  } else {
    const bool linear = options.interpolation == Kind::linear;
    const Image warped = resample(read_image(options.image), reference, chain,
                                  linear ? Interpolation::linear : Interpolation::nearest,
                                  static_cast<float>(options.outside));
    // Nearest-neighbour values are values of the input, so its type holds them.
    const VoxelType natural = linear ? VoxelType::f32 : warped.stored;
    write_image(options.output, warped, chosen ? kTypes.at(options.type) : natural);
  }
  if (!common_options().quiet) {
    std::printf("wrote %s: %s\n", options.output.c_str(), describe(reference).c_str());
  }
}

void run(const ApplyOptions& options) {
  if (options.image.empty() == options.points.empty()) {
    throw CLI::ValidationError("apply", "give either --image or --points");
  }
  if (!options.image.empty() && options.reference.empty()) {
    throw CLI::ValidationError("apply", "--image needs --reference, the grid to resample on");
  }
  TransformChain chain;
  // antsApplyTransforms' order: a warp is named before the affine it was made after.
  for (auto word = options.transforms.rbegin(); word != options.transforms.rend(); ++word) {
    append_transform(chain, *word);
  }
  if (options.points.empty()) {
    apply_to_image(options, chain);
  } else {
    apply_to_points(options, chain);
  }
}

}  // namespace

void add_apply(CLI::App& app) {
  auto options = std::make_shared<ApplyOptions>();
  CLI::App* command = app.add_subcommand(
      "apply", "Resample an image or labels, or map points, through any chain of transforms");
  command->add_option("-i,--image,-m,--moving,--input,--flo", options->image,
                      "Image or labels to resample (.nii, .nii.gz)");
  command->add_option("-r,--reference,-f,--fixed,--ref", options->reference,
                      "Image whose grid the result lies on");
  command
      ->add_option(
          "-t,--transform", options->transforms,
          "Affine (.mat, .tfm, .txt) or field (.nii.gz); [FILE,1] uses an affine's inverse. Repeat for a "
          "chain in antsApplyTransforms' order, a warp before its affine")
      ->allow_extra_args(false);
  command
      ->add_option("-n,--interpolation", options->interpolation,
                   "linear, nearest or label (a vote of labels)")
      ->transform(CLI::CheckedTransformer(kInterpolations, CLI::ignore_case).description(""))
      ->option_text("NAME");
  command->add_option("--outside", options->outside, "Value where the image does not reach")
      ->capture_default_str();
  command->add_option("--type", options->type, "Voxel type written, such as uint8, int16, float32")
      ->check(CLI::Validator(
          [](const std::string& name) {
            return name == "auto" || kTypes.contains(name) ? std::string()
                                                           : "'" + name + "' is no voxel type";
          },
          ""));
  command->add_option("--points", options->points,
                      "Table of points x,y,z (mm) of the fixed space to map to the moving space");
  command->add_option("--points-space", options->points_space, "Axes of the points: ras or lps (ITK, ANTs)")
      ->check(CLI::IsMember({"ras", "lps"}))
      ->capture_default_str();
  command->add_option("-o,--output,--res", options->output, "File to write")->required();
  command->callback([options] { run(*options); });
}

}  // namespace cinnabar::apps
