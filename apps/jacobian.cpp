#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "apps/commands.hpp"
#include "registration/metrics.hpp"
#include "registration/nifti.hpp"

namespace cinnabar::apps {

namespace {

using namespace cinnabar::registration;

/// Where the field folds there is no logarithm; the map shows this determinant's instead.
constexpr float kSmallest = 1e-3f;

struct JacobianOptions {
  std::string field;
  std::string mask;
  std::string output;
  bool logarithm = false;
};

void run(const JacobianOptions& options) {
  const DisplacementField field = read_field(options.field);
  std::optional<LabelImage> mask;
  if (!options.mask.empty()) {
    mask = read_labels(options.mask);
    require_same_grid(field.geometry, field.path, mask->geometry, mask->path);
  }
  Image map{jacobian_determinant(field), field.geometry, {}};
  const JacobianStatistics statistics = jacobian_statistics(map.voxels, mask ? &*mask : nullptr);
  if (options.logarithm) {
    float* value = map.voxels.data<float>();
    for (std::int64_t i = 0; i < map.voxels.numel(); ++i) value[i] = std::log(std::fmax(value[i], kSmallest));
  }
  if (!options.output.empty()) write_image(options.output, map);
  if (common_options().quiet) return;
  std::printf("Jacobian of %s over %lld voxels: minimum %.4g, maximum %.4g, SD of log J %.4g\n",
              options.field.c_str(), static_cast<long long>(statistics.voxels), statistics.minimum,
              statistics.maximum, statistics.sd_log);
  std::printf("non-positive Jacobians: %lld (%.4g %%)\n", static_cast<long long>(statistics.non_positive),
              100.0 * statistics.share_non_positive());
}

}  // namespace

void add_jacobian(CLI::App& app) {
  auto options = std::make_shared<JacobianOptions>();
  CLI::App* command = app.add_subcommand(
      "jacobian", "Write the Jacobian determinant of a displacement field and describe it");
  command->add_option("field,-t,--field", options->field, "Displacement field (.nii, .nii.gz)")->required();
  command->add_option("-o,--output", options->output, "Determinant image to write (.nii, .nii.gz)");
  command->add_flag("--log", options->logarithm,
                    "Write the natural logarithm (of 0.001 where the field folds)");
  command->add_option("-x,--mask", options->mask, "Measure only where this image is not 0");
  command->callback([options] { run(*options); });
}

}  // namespace cinnabar::apps
