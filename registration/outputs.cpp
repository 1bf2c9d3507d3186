#include "registration/outputs.hpp"

#include <sys/resource.h>
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

DisplacementField on_fixed_grid(const Tensor& voxel_displacement, const Geometry& grid,
                                const Geometry& fixed) {
  TransformChain chain;
  chain.append(field_from_voxel_displacement(voxel_displacement.to(Device::cpu()), grid));
  return compose(chain, fixed);
}

Products make_products(const Image& fixed, const Image& moving, const RegistrationResult& result) {
  Products made;
  made.affine = {result.affine.fixed_to_moving, centre_of_mass(fixed)};
  made.warp = on_fixed_grid(result.flow.psi.value(), result.grid, fixed.geometry);
  made.inverse_warp = on_fixed_grid(result.flow.phi.value(), result.grid, fixed.geometry);
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

/// Where the fixed image is above a small share of its maximum: the head, for figures about the deformation.
LabelImage foreground(const Image& fixed) {
  LabelImage mask{Tensor::zeros(fixed.voxels.shape(), DType::i32), fixed.geometry, {}, VoxelType::u8};
  const float* value = fixed.voxels.data<float>();
  const std::int64_t count = fixed.voxels.numel();
  const float threshold = 0.02f * *std::max_element(value, value + count);
  std::int32_t* label = mask.labels.data<std::int32_t>();
  for (std::int64_t i = 0; i < count; ++i) label[i] = value[i] > threshold ? 1 : 0;
  return mask;
}

std::size_t peak_memory_bytes(Device device) {
  if (device.is_cuda()) return static_cast<std::size_t>(memory_use(DeviceType::cuda).peak_bytes);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

std::string_view name_of(Similarity similarity) {
  switch (similarity) {
    case Similarity::ssd:
      return "ssd";
    case Similarity::ncc:
      return "ncc";
    case Similarity::lncc:
      return "lncc";
  }
  fail("name_of", "unknown similarity");
}

std::string_view name_of(AffineModel model) {
  switch (model) {
    case AffineModel::none:
      return "none";
    case AffineModel::rigid:
      return "rigid";
    case AffineModel::affine:
      return "affine";
  }
  fail("name_of", "unknown affine model");
}

Json parameters_of(const RegistrationOptions& options) {
  const ShootingOptions& shooting = options.matching.shooting;
  Json levels = Json::array();
  for (const Level& level : options.levels) {
    levels.push_back({{"shrink", level.shrink},
                      {"smoothing_voxels", level.smoothing_voxels},
                      {"iterations", level.iterations}});
  }
  return {{"similarity", name_of(options.matching.similarity)},
          {"sigma", options.matching.sigma},
          {"lncc_radius", options.matching.lncc_radius},
          {"alpha", shooting.fluid.alpha},
          {"beta", shooting.fluid.beta},
          {"gamma", shooting.fluid.gamma},
          {"power", shooting.fluid.power},
          {"time_steps", shooting.time_steps},
          {"inverse_iterations", shooting.inverse_iterations},
          {"levels", levels},
          {"relative_decrease", options.lbfgs.relative_decrease},
          {"affine", name_of(options.affine.model)},
          {"resolution_mm", options.preparation.resolution_mm},
          {"crop", options.preparation.crop},
          {"histogram_matching", options.preparation.match_histograms}};
}

Json levels_of(const RegistrationResult& result) {
  Json levels = Json::array();
  for (const LevelReport& level : result.levels) {
    levels.push_back({{"grid", {level.grid[4], level.grid[3], level.grid[2]}},
                      {"iterations", level.iterations},
                      {"evaluations", level.evaluations},
                      {"energy_before", level.first_energy},
                      {"energy_after", level.energy},
                      {"stop_reason", describe(level.reason)},
                      {"seconds", level.seconds}});
  }
  return levels;
}

Json run_record(const Image& fixed, const Image& moving, const RegistrationResult& result,
                const RegistrationOptions& options, const RunContext& context, const RunFigures& figures) {
  const Device device = options.preparation.device;
  return {{"version", context.version},
          {"command", context.command},
          {"device", detail::concat(device)},
          {"device_name", device_properties(device).name},
          {"device_reason", context.device_reason},
          {"threads", context.threads},
          {"seed", context.seed},
          {"inputs",
           {{"fixed", fixed.path},
            {"fixed_crc32", checksum(fixed.path)},
            {"moving", moving.path},
            {"moving_crc32", checksum(moving.path)}}},
          {"parameters", parameters_of(options)},
          {"grid", {{"extent", result.grid.extent}, {"spacing_mm", result.grid.spacing_mm()[0]}}},
          {"similarity_metric", "ncc"},
          {"similarity_before", figures.similarity_before},
          {"similarity_affine", figures.similarity_affine},
          {"similarity_after", figures.similarity_after},
          {"mse_before", result.ssd.header},
          {"mse_affine", result.ssd.affine},
          {"mse_after", result.ssd.final},
          {"smallest_jacobian", result.smallest_jacobian},
          {"nonpositive_jacobian_fraction", figures.nonpositive_jacobian_fraction},
          {"sd_log_jacobian", figures.sd_log_jacobian},
          {"inverse_consistency_mm", figures.inverse_consistency_mm},
          {"inverse_consistency_mm_max", figures.inverse_consistency_mm_max},
          {"iterations", result.iterations},
          {"stop_reason", describe(result.reason)},
          {"levels", levels_of(result)},
          {"seconds", result.seconds},
          {"peak_memory_bytes", peak_memory_bytes(device)}};
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
  report.tables = {table("Result", record), table("Parameters", record["parameters"])};
  report.commands = {{"This run", record["command"].get<std::string>()},
                     {"The warped image with ANTs", ants}};
  return report;
}

}  // namespace

std::string ants_command(const std::string& prefix, const std::string& fixed, const std::string& moving) {
  return "antsApplyTransforms -d 3 -i " + moving + " -r " + fixed + " -t " + prefix + "1Warp.nii.gz -t " +
         prefix + "0GenericAffine.mat -o " + prefix + "WarpedByAnts.nii.gz";
}

void require_writable_prefix(const std::string& prefix) {
  const std::filesystem::path folder = std::filesystem::path(prefix + "x").parent_path();
  const std::filesystem::path where = folder.empty() ? "." : folder;
  if (!std::filesystem::is_directory(where)) {
    fail_input(where.string(), ": no such folder for the outputs: create it or change --output");
  }
  if (access(where.c_str(), W_OK) != 0) {
    fail_input(where.string(), ": no permission to write the outputs: change --output");
  }
}

RunFigures write_outputs(const std::string& prefix, const Image& fixed, const Image& moving,
                         const RegistrationResult& result, const RegistrationOptions& options,
                         const RunContext& context, const std::function<bool()>& keep_going) {
  const Products made = make_products(fixed, moving, result);
  const LabelImage head = foreground(fixed);
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
  const DisplacementField momentum =
      field_from_voxel_displacement(result.momentum.to(Device::cpu()), result.grid);
  const std::vector<std::function<void()>> writers{
      [&] { write_affine(prefix + "0GenericAffine.mat", made.affine); },
      [&] { write_field(prefix + "1Warp.nii.gz", made.warp); },
      [&] { write_field(prefix + "1InverseWarp.nii.gz", made.inverse_warp); },
      [&] { write_image(prefix + "Warped.nii.gz", made.warped); },
      [&] { write_image(prefix + "InverseWarped.nii.gz", made.inverse_warped); },
      [&] { write_field(prefix + "Momentum.nii.gz", momentum); },
      [&] { write_image(prefix + "Jacobian.nii.gz", made.jacobian); },
      [&] { write_bytes(figures.picture, picture); },
      [&] {
        write_report(prefix + "report.html",
                     report_of(record, picture, ants_command(prefix, fixed.path, moving.path)));
      },
      [&] { write_text(prefix + "run.json", record.dump(2) + "\n"); }};
  for (const auto& write : writers) {
    if (!keep_going())
      throw InterruptedRun("interrupted while writing; the files written so far are complete");
    write();
  }
  return figures;
}

}  // namespace cinnabar::registration
