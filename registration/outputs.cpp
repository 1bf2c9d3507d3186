#include "registration/outputs.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "registration/metrics.hpp"
#include "registration/mosaic.hpp"
#include "registration/nifti.hpp"
#include "registration/output_file.hpp"
#include "registration/report.hpp"
#include "registration/transform_chain.hpp"

namespace cinnabar::registration {

namespace {

using Json = nlohmann::ordered_json;

/// The transforms and images of one run, in memory before any is written.
struct Products {
  Affine affine;
  DisplacementField warp;          ///< fixed grid, fixed -> affinely aligned moving
  DisplacementField inverse_warp;  ///< fixed grid
  Image moving_affine;             ///< moving through the affine alone, on the fixed grid
  Image warped;
  Image inverse_warped;  ///< fixed on the moving grid
  Image jacobian;        ///< det of D phi^-1, fixed grid
};

/// What samples say of phi^-1, on the fixed grid.
struct SampleMaps {
  DisplacementField mean;
  Image variance;  ///< sum of the variances of the three components, mm^2
};

DisplacementField on_fixed_grid(const Tensor& voxel_displacement, const Geometry& grid,
                                const Geometry& fixed) {
  TransformChain chain;
  chain.append(field_from_voxel_displacement(voxel_displacement.to(Device::cpu()), grid));
  return compose(chain, fixed);
}

Products make_products(const Image& fixed, const Image& moving, const RegistrationResult& result) {
  Products made;
  made.affine = {result.affine.fixed_to_moving, centre_of_mass(fixed)};
  made.warp = on_fixed_grid(result.flow.psi.value(), result.image_grid, fixed.geometry);
  made.inverse_warp = on_fixed_grid(result.flow.phi.value(), result.image_grid, fixed.geometry);
  TransformChain affine_only, pull, push;
  affine_only.append(made.affine);
  pull.append(made.affine);
  pull.append(made.warp);
  push.append(made.inverse_warp);
  push.append(invert(made.affine.matrix));
  made.moving_affine = resample(moving, fixed.geometry, affine_only);
  made.warped = resample(moving, fixed.geometry, pull);
  made.inverse_warped = resample(fixed, moving.geometry, push);
  made.jacobian = {jacobian_determinant(made.warp), fixed.geometry, {}, VoxelType::f32};
  return made;
}

SampleMaps sample_maps(const DeformationSamples& samples, const Geometry& grid, const Geometry& fixed) {
  const double spacing = grid.spacing_mm()[0];
  Tensor variance = samples.variance.reshape(grid.shape()).clone();
  float* value = variance.data<float>();
  for (std::int64_t i = 0; i < variance.numel(); ++i) value[i] *= static_cast<float>(spacing * spacing);
  return {on_fixed_grid(samples.mean, grid, fixed),
          resample(Image{variance, grid, {}, VoxelType::f32}, fixed, TransformChain())};
}

/// Where the fixed image is above a small share of its range: the head, for figures about the deformation.
LabelImage foreground(const Image& fixed) {
  LabelImage mask{Tensor::zeros(fixed.voxels.shape(), DType::i32), fixed.geometry, {}, VoxelType::u8};
  const float* value = fixed.voxels.data<float>();
  const std::int64_t count = fixed.voxels.numel();
  const auto [least, greatest] = std::minmax_element(value, value + count);
  const float low = std::min(*least, 0.0f);
  const float threshold = low + 0.02f * (*greatest - low);
  std::int32_t* label = mask.labels.data<std::int32_t>();
  for (std::int64_t i = 0; i < count; ++i) label[i] = value[i] > threshold ? 1 : 0;
  return mask;
}

Report report_of(const Json& record, const std::vector<std::byte>& picture, const std::string& ants) {
  Report report;
  report.title = "Registration";
  report.subtitle =
      record["inputs"]["moving"].get<std::string>() + " to " + record["inputs"]["fixed"].get<std::string>();
  report.mosaic_png = picture;
  const auto table = [](const std::string& title, const Json& object) {
    ReportTable result{title, {}, {}};
    for (const auto& [key, value] : object.items()) {
      if (value.is_structured()) continue;
      result.rows.push_back({key, value.is_string() ? value.get<std::string>() : value.dump()});
    }
    return result;
  };
  report.tables = {table("Result", record), table("Parameters", record["parameters"]),
                   table("Seconds", record["stage_seconds"])};
  if (record.contains("prediction")) report.tables.push_back(table("Prediction", record["prediction"]));
  report.commands = {{"This run", record["command"].get<std::string>()},
                     {"The warped image with ANTs", ants}};
  return report;
}

}  // namespace

std::string shell_quoted(const std::string& word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+=:,@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string result = "'";
  for (const char c : word) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

std::string ants_command(const std::string& prefix, const std::string& fixed, const std::string& moving) {
  return "antsApplyTransforms -d 3 -i " + shell_quoted(moving) + " -r " + shell_quoted(fixed) + " -t " +
         shell_quoted(prefix + "1Warp.nii.gz") + " -t " + shell_quoted(prefix + "0GenericAffine.mat") +
         " -o " + shell_quoted(prefix + "WarpedByAnts.nii.gz");
}

void require_writable_prefix(const std::string& prefix, const std::string& option) {
  const std::filesystem::path folder = std::filesystem::path(prefix + "x").parent_path();
  const std::filesystem::path where = folder.empty() ? "." : folder;
  if (!std::filesystem::is_directory(where)) {
    fail_input(where.string(), ": no such folder for the outputs: create it or change ", option);
  }
  if (access(where.c_str(), W_OK) != 0) {
    fail_input(where.string(), ": no permission to write the outputs: change ", option);
  }
}

void require_apart(const std::string& prefix, const std::vector<std::string>& inputs) {
  for (const std::string& input : inputs) {
    const std::filesystem::path path = input;
    std::error_code ignored;
    for (const char* name : {"0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz", "Warped.nii.gz",
                             "InverseWarped.nii.gz", "Momentum.nii.gz", "Velocity.nii.gz", "Jacobian.nii.gz",
                             "DeformationMean.nii.gz", "DeformationVariance.nii.gz"}) {
      if (!std::filesystem::equivalent(prefix + name, path, ignored)) continue;
      fail_input(input, ": would be overwritten by the output of that name: change --output");
    }
  }
}

RunFigures write_outputs(const std::string& prefix, const Image& fixed, const Image& moving,
                         const RegistrationResult& result, const RegistrationOptions& options,
                         const RunContext& context, const std::function<bool()>& keep_going) {
  const Products made = make_products(fixed, moving, result);
  const LabelImage head = foreground(without_outliers(fixed));
  const JacobianStatistics jacobian = jacobian_statistics(made.jacobian.voxels);
  const InverseConsistency inverse = inverse_consistency(made.warp, made.inverse_warp, &head);
  RunFigures figures;
  figures.similarity_before = result.ncc.header;
  figures.similarity_affine = result.ncc.affine;
  figures.similarity_after = result.ncc.final;
  figures.nonpositive_jacobian_fraction = jacobian.share_non_positive();
  figures.sd_log_jacobian = jacobian_statistics(made.jacobian.voxels, &head).sd_log;
  figures.inverse_consistency_mm = inverse.mean_mm;
  figures.inverse_consistency_mm_max = inverse.maximum_mm;
  figures.picture = prefix + "mosaic.png";

  const Json record = run_record(fixed, moving, result, options, context, figures);
  const std::vector<std::byte> picture = draw_mosaic({fixed, made.moving_affine, made.warped, made.warp});
  // What made the deformation: an initial momentum or a stationary velocity.
  const bool geodesic = result.momentum.defined();
  const DisplacementField source = field_from_voxel_displacement(
      (geodesic ? result.momentum : result.velocity).to(Device::cpu()), result.grid);
  std::vector<std::function<void()>> writers{
      [&] { write_affine(prefix + "0GenericAffine.mat", made.affine); },
      [&] { write_field(prefix + "1Warp.nii.gz", made.warp); },
      [&] { write_field(prefix + "1InverseWarp.nii.gz", made.inverse_warp); },
      [&] { write_image(prefix + "Warped.nii.gz", made.warped); },
      [&] { write_image(prefix + "InverseWarped.nii.gz", made.inverse_warped); },
      [&] { write_field(prefix + (geodesic ? "Momentum.nii.gz" : "Velocity.nii.gz"), source); },
      [&] { write_image(prefix + "Jacobian.nii.gz", made.jacobian); },
      [&] { write_bytes(figures.picture, picture); }};
  std::optional<SampleMaps> maps;
  if (result.prediction && result.prediction->samples) {
    maps = sample_maps(*result.prediction->samples, result.grid, fixed.geometry);
    writers.push_back([&] { write_field(prefix + "DeformationMean.nii.gz", maps->mean); });
    writers.push_back([&] { write_image(prefix + "DeformationVariance.nii.gz", maps->variance); });
  }
  writers.push_back([&] {
    write_report(prefix + "report.html",
                 report_of(record, picture, ants_command(prefix, fixed.path, moving.path)));
  });
  writers.push_back([&] { write_text(prefix + "run.json", record.dump(2) + "\n"); });
  for (const auto& write : writers) {
    if (!keep_going())
      throw InterruptedRun("interrupted while writing; the files written so far are complete");
    write();
  }
  return figures;
}

}  // namespace cinnabar::registration
