#include <charconv>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "apps/commands.hpp"
#include "registration/metrics.hpp"
#include "registration/nifti.hpp"

namespace cinnabar::apps {

namespace {

using namespace cinnabar::registration;
using Json = nlohmann::ordered_json;

struct MeasureOptions {
  std::string fixed, warped;
  std::string fixed_labels, warped_labels;
  std::string field, inverse;
  std::string mask;
  std::vector<std::string> labels, ignored;
  bool json = false;
};

/// "4" or "1-32" into a set.
std::set<std::int32_t> parse_labels(const std::vector<std::string>& words, const std::string& option) {
  std::set<std::int32_t> labels;
  for (const std::string& word : words) {
    std::int32_t first = 0;
    const char* const end = word.data() + word.size();
    auto read = std::from_chars(word.data(), end, first);
    std::int32_t last = first;
    if (read.ec == std::errc() && read.ptr != end && *read.ptr == '-')
      read = std::from_chars(read.ptr + 1, end, last);
    if (read.ec != std::errc() || read.ptr != end || last < first || std::int64_t{last} - first > 1000000) {
      throw CLI::ValidationError(option, "'" + word + "' is neither a label nor a range such as 1-32");
    }
    for (std::int64_t label = first; label <= last; ++label) labels.insert(static_cast<std::int32_t>(label));
  }
  return labels;
}

Json measure_images(const MeasureOptions& options, const LabelImage* mask) {
  const ImageSimilarity result = compare_images(read_image(options.warped), read_image(options.fixed), mask);
  if (result.voxels == 0) fail_input(options.mask, ": the mask is 0 everywhere: nothing to measure");
  return {{"ssd", result.ssd}, {"mse", result.mse}, {"ncc", result.ncc}, {"voxels", result.voxels}};
}

Json measure_labels(const MeasureOptions& options) {
  const LabelSelection selection{parse_labels(options.labels, "--labels"),
                                 parse_labels(options.ignored, "--ignore")};
  const LabelReport report =
      compare_labels(read_labels(options.warped_labels), read_labels(options.fixed_labels), selection);
  if (report.labels.empty()) {
    fail_input(options.warped_labels, ": there is no label to compare with ", options.fixed_labels,
               ": neither has any that --labels and --ignore leave");
  }
  Json json{{"mean_dice", report.mean_dice},
            {"union_dice", report.union_dice},
            {"mean_target_overlap", report.mean_target_overlap},
            {"labels", Json::array()}};
  for (const LabelOverlap& one : report.labels) {
    json["labels"].push_back({{"label", one.label},
                              {"dice", one.dice()},
                              {"target_overlap", one.target_overlap()},
                              {"warped_voxels", one.warped_voxels},
                              {"fixed_voxels", one.reference_voxels}});
  }
  return json;
}

Json measure_field(const DisplacementField& field, const LabelImage* mask) {
  const JacobianStatistics result = jacobian_statistics(jacobian_determinant(field), mask);
  return {{"non_positive_share", result.share_non_positive()},
          {"non_positive", result.non_positive},
          {"voxels", result.voxels},
          {"minimum", result.minimum},
          {"maximum", result.maximum},
          {"mean", result.mean},
          {"sd_log", result.sd_log}};
}

Json measure_inverse(const DisplacementField& field, const DisplacementField& inverse,
                     const LabelImage* mask) {
  const InverseConsistency result = inverse_consistency(field, inverse, mask);
  return {{"mean_mm", result.mean_mm},
          {"p95_mm", result.p95_mm},
          {"maximum_mm", result.maximum_mm},
          {"voxels", result.voxels},
          {"left_out", result.left_out}};
}

std::string value_text(const Json& value) {
  if (value.is_number_float()) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", value.get<double>());
    return text;
  }
  return value.dump();
}

void print_plain(const Json& result) {
  for (const auto& [section, content] : result.items()) {
    std::printf("%s\n", section.c_str());
    for (const auto& [name, value] : content.items()) {
      if (!value.is_array()) std::printf("  %-20s %s\n", name.c_str(), value_text(value).c_str());
    }
    if (!content.contains("labels")) continue;
    std::printf("  %8s %10s %14s\n", "label", "dice", "target overlap");
    for (const Json& one : content["labels"]) {
      std::printf("  %8d %10s %14s\n", one["label"].get<int>(), value_text(one["dice"]).c_str(),
                  value_text(one["target_overlap"]).c_str());
    }
  }
}

void require_pair(const std::string& a, const std::string& b, const char* names) {
  if (a.empty() != b.empty()) throw CLI::ValidationError("measure", std::string(names) + " go together");
}

void run(const MeasureOptions& options) {
  require_pair(options.fixed, options.warped, "--fixed and --warped");
  require_pair(options.fixed_labels, options.warped_labels, "--fixed-labels and --warped-labels");
  if (!options.inverse.empty() && options.field.empty()) {
    throw CLI::ValidationError("measure", "--inverse needs --field");
  }
  if (options.fixed.empty() && options.fixed_labels.empty() && options.field.empty()) {
    throw CLI::ValidationError("measure", "give two images, two label images or a field");
  }
  std::optional<LabelImage> mask;
  if (!options.mask.empty()) mask = read_labels(options.mask);
  const auto mask_on = [&](const Geometry& grid, const std::string& path) {
    if (mask) require_same_grid(grid, path, mask->geometry, mask->path);
    return mask ? &*mask : nullptr;
  };
  Json result;
  if (!options.fixed.empty()) {
    result["images"] = measure_images(options, mask_on(read_geometry(options.fixed), options.fixed));
  }
  if (!options.fixed_labels.empty()) result["overlap"] = measure_labels(options);
  if (!options.field.empty()) {
    const DisplacementField field = read_field(options.field);
    const LabelImage* on_field = mask_on(field.geometry, field.path);
    result["jacobian"] = measure_field(field, on_field);
    if (!options.inverse.empty()) {
      result["inverse_consistency"] = measure_inverse(field, read_field(options.inverse), on_field);
    }
  }
  if (options.json) {
    std::printf("%s\n", result.dump(2).c_str());
  } else {
    print_plain(result);
  }
}

}  // namespace

void add_measure(CLI::App& app) {
  auto options = std::make_shared<MeasureOptions>();
  CLI::App* command = app.add_subcommand(
      "measure",
      "Compare images (SSD, NCC) and labels (Dice), and check fields (Jacobian, inverse consistency)");
  command->add_option("-f,--fixed,--ref", options->fixed, "Fixed image");
  command->add_option("-w,--warped", options->warped, "Image warped onto the fixed image's grid");
  command->add_option("--fixed-labels", options->fixed_labels, "Labels of the fixed image");
  command->add_option("--warped-labels", options->warped_labels, "Labels warped onto the fixed image's grid");
  command->add_option("--labels", options->labels, "Only these labels, such as 1-32,40")->delimiter(',');
  command->add_option("--ignore", options->ignored, "Labels that do not count (0 never does)")
      ->delimiter(',');
  command->add_option("-t,--field", options->field, "Displacement field");
  command->add_option("--inverse", options->inverse, "Field that undoes --field");
  command->add_option("-x,--mask", options->mask, "Measure images and fields only where this image is not 0");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options] { run(*options); });
}

}  // namespace cinnabar::apps
