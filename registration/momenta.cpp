#include "registration/momenta.hpp"

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "autograd/elementwise.hpp"
#include "autograd/green_operator.hpp"
#include "autograd/random.hpp"
#include "autograd/reduce.hpp"
#include "autograd/similarity.hpp"
#include "autograd/warp.hpp"
#include "engine/safetensors.hpp"
#include "registration/folder_settings.hpp"
#include "registration/output_file.hpp"
#include "registration/outputs.hpp"

namespace cinnabar::registration {

namespace {

using Json = nlohmann::ordered_json;

Json settings_of(const MomentaOptions& options) {
  const MatchingOptions& matching = options.registration.matching;
  const MomentumModel model{matching.shooting.fluid,      matching.sigma,
                            matching.shooting.time_steps, matching.shooting.inverse_iterations,
                            options.spacing_mm,           options.registration.preparation.head_voxels,
                            matching.similarity,          matching.lncc_radius};
  Json levels = Json::array();
  for (const Level& level : options.registration.levels) {
    levels.push_back({level.shrink, level.smoothing_voxels, level.iterations});
  }
  return {{"format", 1},
          {"model", to_json(model)},
          {"levels", levels},
          {"relative_decrease", options.registration.lbfgs.relative_decrease},
          {"margin_mm", options.registration.preparation.margin_mm},
          {"augmentation_voxels", options.augmentation_voxels},
          {"seed", options.seed}};
}

Json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  Json value = Json::parse(file, nullptr, false);
  if (!file || value.is_discarded())
    fail_input(path.string(), ": not a JSON file: remove it and start again");
  return value;
}

/// Deforms an image by a random geodesic with the given root mean square displacement: momentum of white
/// noise, which the metric smooths; its mean velocity, a mere shift, is left out.
Tensor randomly_deformed(const Tensor& image, const MomentaOptions& options, std::uint64_t stream) {
  const NoGrad quiet;
  const ShootingOptions& shooting = options.registration.matching.shooting;
  const Shape field = image.shape().with(1, 3);
  const Variable noise(random_normal(field, 0.0, 1.0, options.seed, stream, image.device()));
  const Variable velocity = smooth(noise, shooting.fluid, shooting.padding);
  const Variable centred = velocity - mean(velocity, {2, 3, 4}, true);
  const double length = std::sqrt(3.0 * mean(square(centred)).value().item());
  const double factor = options.augmentation_voxels / length;
  const Variable momentum = sharpen(factor * centred, shooting.fluid, shooting.padding);
  return warp(Variable(image), shoot(momentum, shooting).psi, Boundary::border).value();
}

double correlation(const Tensor& a, const Tensor& b) {
  const NoGrad quiet;
  return 1.0 - ncc_loss(Variable(a), Variable(b)).value().item();
}

/// A pair after the affine stage, which its augmentations share.
struct AlignedPair {
  AffineAlignment affine;
  PreparedPair prepared;
};

AlignedPair align(const PairEntry& pair, const RegistrationOptions& options) {
  const Image fixed = read_scan(pair.fixed), moving = read_scan(pair.moving);
  AlignedPair result;
  result.affine = align_affine(fixed, moving, nullptr, nullptr, options.affine);
  result.prepared = prepare_pair(fixed, moving, nullptr, result.affine.fixed_to_moving, options.preparation);
  require_memory(result.prepared.pair.fixed.shape(), options);
  return result;
}

/// What a job makes: the pair as it was matched and its momentum.
struct JobResult {
  ImagePair pair;
  MultiresolutionResult matched;
  MomentumReport report;
};

/// The work on one folder.
class Cohort {
 public:
  Cohort(const std::filesystem::path& folder, const MomentaOptions& options, const MomentaObserver& observer)
      : folder_(folder), options_(options), observer_(observer) {}

  bool finished(const MomentumJob& job) const { return is_recorded(job.pair, job.name(), folder_); }

  JobResult match(const MomentumJob& job, const AlignedPair& aligned) const {
    const auto began = std::chrono::steady_clock::now();
    const RegistrationOptions& registration = options_.registration;
    JobResult result{aligned.prepared.pair, {}, {}};
    ImagePair& pair = result.pair;
    if (job.augmentation > 0) {
      pair.moving = randomly_deformed(pair.moving, options_, stream(job, "moving"));
      pair.fixed = randomly_deformed(pair.fixed, options_, stream(job, "fixed"));
    }
    MatchingOptions matching = registration.matching;
    matching.checkpointed = recomputes_steps(pair.fixed.shape(), registration);
    result.matched = match_coarse_to_fine(
        pair, aligned.prepared.grid, matching, registration.lbfgs, registration.levels,
        [&](const LevelProgress&) { return !observer_.keep_going || observer_.keep_going(); });
    check_interrupted();
    const NoGrad quiet;
    const Flow flow = shoot(Variable(result.matched.momentum), matching.shooting);
    result.report.ncc_affine = correlation(pair.moving, pair.fixed);
    result.report.ncc =
        correlation(warp(Variable(pair.moving), flow.psi, Boundary::border).value(), pair.fixed);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - began;
    result.report.seconds = elapsed.count();
    return result;
  }

  void write(const MomentumJob& job, const AlignedPair& aligned, const JobResult& result) const {
    SafeTensors volumes;
    volumes.tensors = {{"moving", result.pair.moving.to(Device::cpu())},
                       {"target", result.pair.fixed.to(Device::cpu())},
                       {"momentum", result.matched.momentum.to(Device::cpu())}};
    save_safetensors(folder_ / (job.name() + ".safetensors"), volumes);
    const LevelReport& last = result.matched.levels.back();
    const Geometry& grid = aligned.prepared.grid;
    const Json record{{"name", job.name()},
                      {"moving", job.pair.moving.string()},
                      {"moving_crc32", checksum(job.pair.moving)},
                      {"fixed", job.pair.fixed.string()},
                      {"fixed_crc32", checksum(job.pair.fixed)},
                      {"augmentation", job.augmentation},
                      {"grid",
                       {{"extent", grid.extent},
                        {"spacing_mm", grid.spacing_mm()[0]},
                        {"voxel_to_world", grid.voxel_to_world}}},
                      {"fixed_to_moving", aligned.affine.fixed_to_moving},
                      {"ncc_affine", result.report.ncc_affine},
                      {"ncc", result.report.ncc},
                      {"energy_before", last.first_energy},
                      {"energy_after", last.energy},
                      {"stop_reason", describe(last.reason)},
                      {"seconds", result.report.seconds}};
    write_text(folder_ / (job.name() + ".json"), record.dump(2) + "\n");
  }

  void check_interrupted() const {
    if (observer_.keep_going && !observer_.keep_going()) {
      throw InterruptedRun("interrupted; start the same command again to go on");
    }
  }

 private:
  /// A random stream of its own for every image, whatever the list's order or the shards: FNV-1a of its name.
  static std::uint64_t stream(const MomentumJob& job, const char* image) {
    std::uint64_t hash = 14695981039346656037u;
    for (const char c : job.name() + "/" + image) {
      hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
    }
    return hash;
  }

  std::filesystem::path folder_;
  const MomentaOptions& options_;
  const MomentaObserver& observer_;
};

/// Copies of one pair may have the name of another pair.
void require_own_names(const std::vector<PairEntry>& pairs, int augmentations) {
  std::set<std::string> names;
  for (const PairEntry& pair : pairs) {
    for (int augmentation = 0; augmentation <= augmentations; ++augmentation) {
      const std::string name = MomentumJob{pair, augmentation}.name();
      if (names.insert(name).second) continue;
      fail_input("the list has a pair ", name,
                 ", which is also the name of a deformed copy: rename the pair");
    }
  }
}

}  // namespace

MomentaTotals make_momenta(const std::vector<PairEntry>& pairs, const std::filesystem::path& folder,
                           const MomentaOptions& options, const MomentaObserver& observer) {
  CINNABAR_CHECK(options.shard >= 1 && options.shard <= options.shards, "make_momenta", "shard ",
                 options.shard, " of ", options.shards);
  require_own_names(pairs, options.augmentations);
  claim_folder(folder, "momenta.json", settings_of(options));
  Cohort cohort(folder, options, observer);
  MomentaTotals totals;
  const auto per_pair = static_cast<std::size_t>(options.augmentations) + 1;
  const auto first = static_cast<std::size_t>(options.shard - 1);
  const auto step = static_cast<std::size_t>(options.shards);
  const std::size_t jobs = (pairs.size() - std::min(first, pairs.size()) + step - 1) / step * per_pair;
  std::size_t index = 0;
  for (std::size_t i = first; i < pairs.size(); i += step) {
    std::optional<AlignedPair> aligned;
    for (int augmentation = 0; augmentation <= options.augmentations; ++augmentation, ++index) {
      const MomentumJob job{pairs[i], augmentation};
      cohort.check_interrupted();
      if (cohort.finished(job)) {
        ++totals.kept;
        continue;
      }
      if (observer.begin) observer.begin(job, index, jobs);
      JobResult result;
      try {
        if (!aligned) aligned = align(job.pair, options.registration);
        result = cohort.match(job, *aligned);
      } catch (const InterruptedRun&) {
        throw;
      } catch (const Error& error) {
        ++totals.failed;
        if (observer.failed) observer.failed(job, error.what());
        continue;
      }
      cohort.write(job, *aligned, result);  // what fails here would fail for all
      ++totals.made;
      if (observer.done) observer.done(job, result.report);
    }
  }
  return totals;
}

MomentumModel read_momentum_model(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "momenta.json";
  if (!std::filesystem::exists(path)) {
    fail_input(path.string(), ": not found; name a folder that cinnabar momenta made");
  }
  const Json settings = read_json(path);
  if (!settings.is_object() || !settings.contains("model")) {
    fail_input(path.string(), ": is no description of momenta");
  }
  try {
    return momentum_model_from_json(settings["model"]);
  } catch (const InputError& error) {
    fail_input(path.string(), ": ", error.what());
  }
}

}  // namespace cinnabar::registration
