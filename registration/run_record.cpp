#include "registration/run_record.hpp"

#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "kernels/conv3d_precision.hpp"
#include "registration/output_file.hpp"

namespace cinnabar::registration {

namespace {

using Json = nlohmann::ordered_json;

std::size_t peak_memory_bytes(Device device) {
  if (device.is_cuda()) return static_cast<std::size_t>(memory_use(DeviceType::cuda).peak_bytes);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
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

/// What is the same for all methods.
void add_preparation(const RegistrationOptions& options, Json& parameters) {
  parameters["affine"] = name_of(options.affine.model);
  parameters["resolution_mm"] = options.preparation.resolution_mm;
  parameters["head_voxels"] = options.preparation.head_voxels;
  parameters["crop"] = options.preparation.crop;
  parameters["histogram_matching"] = options.preparation.match_histograms;
}

Json parameters_of(const VoxelmorphDescription& description) {
  const VoxelmorphOptions& network = description.network;
  return {{"features", network.features},
          {"network_levels", network.levels},
          {"half_resolution", network.half_resolution},
          {"symmetric", network.symmetric},
          {"squarings", network.squarings},
          {"trained_with", cinnabar::name_of(description.loss.similarity)},
          {"smoothness", description.loss.smoothness}};
}

Json parameters_of(const RegistrationOptions& options) {
  if (options.voxelmorph) {
    Json parameters = parameters_of(options.voxelmorph->description());
    add_preparation(options, parameters);
    return parameters;
  }
  const ShootingOptions& shooting = options.matching.shooting;
  Json levels = Json::array();
  for (const Level& level : options.levels) {
    levels.push_back({{"shrink", level.shrink},
                      {"smoothing_voxels", level.smoothing_voxels},
                      {"iterations", level.iterations}});
  }
  Json parameters{{"similarity", cinnabar::name_of(options.matching.similarity)},
                  {"sigma", options.matching.sigma},
                  {"lncc_radius", options.matching.lncc_radius},
                  {"alpha", shooting.fluid.alpha},
                  {"beta", shooting.fluid.beta},
                  {"gamma", shooting.fluid.gamma},
                  {"power", shooting.fluid.power},
                  {"image_factor", options.image_factor},
                  {"time_steps", shooting.time_steps},
                  {"inverse_iterations", shooting.inverse_iterations},
                  {"levels", levels},
                  {"relative_decrease", options.lbfgs.relative_decrease}};
  add_preparation(options, parameters);
  return parameters;
}

Json levels_of(const RegistrationResult& result) {
  Json levels = Json::array();
  for (const LevelReport& level : result.levels) {
    levels.push_back({{"grid", {level.images[4], level.images[3], level.images[2]}},
                      {"iterations", level.iterations},
                      {"evaluations", level.evaluations},
                      {"energy_before", level.first_energy},
                      {"energy_after", level.energy},
                      {"stop_reason", describe(level.reason)},
                      {"seconds", level.seconds}});
  }
  return levels;
}

Json seconds_of(const RegistrationResult& result) {
  Json seconds;
  for (const StageTime& stage : result.stages) seconds[stage.stage] = stage.seconds;
  return seconds;
}

Json networks_of(const QuicksilverPredictor& predictor) {
  Json networks = Json::array();
  for (const NetworkFile& file : predictor.files()) {
    networks.push_back({{"role", file.role}, {"path", file.path.string()}, {"crc32", checksum(file.path)}});
  }
  return networks;
}

Json prediction_of(const MomentumPrediction& prediction) {
  Json object{{"patches", prediction.patches},
              {"corrections", prediction.corrections},
              {"kept_length", prediction.kept_length}};
  if (prediction.samples) {
    object["samples"] = prediction.samples->kept;
    object["samples_diverged"] = prediction.samples->diverged;
  }
  return object;
}

}  // namespace

nlohmann::ordered_json run_record(const Image& fixed, const Image& moving, const RegistrationResult& result,
                                  const RegistrationOptions& options, const RunContext& context,
                                  const RunFigures& figures) {
  const Device device = options.preparation.device;
  Json record{{"version", context.version},
              {"command", context.command},
              {"method", method_of(options)},
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
              {"stop_reason", result.reason ? describe(*result.reason) : "no optimisation"},
              {"levels", levels_of(result)},
              {"stage_seconds", seconds_of(result)},
              {"seconds", result.seconds},
              {"peak_memory_bytes", peak_memory_bytes(device)}};
  if (options.predictor) {
    record["networks"] = networks_of(*options.predictor);
    record["precision"] = cinnabar::name_of(options.predictor->precision());
  }
  if (options.voxelmorph) {
    const std::filesystem::path& file = options.voxelmorph->file();
    record["networks"] =
        Json::array({{{"role", "voxelmorph"}, {"path", file.string()}, {"crc32", checksum(file)}}});
  }
  if (result.prediction) record["prediction"] = prediction_of(*result.prediction);
  return record;
}

}  // namespace cinnabar::registration
