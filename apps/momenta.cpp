// cinnabar momenta: geodesic matching over a cohort, the lessons of a Quicksilver network.

#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <memory>

#include "apps/commands.hpp"
#include "apps/device_choice.hpp"
#include "apps/interrupt.hpp"
#include "apps/number_checks.hpp"
#include "apps/schedule.hpp"
#include "apps/similarity_options.hpp"
#include "registration/momenta.hpp"
#include "registration/outputs.hpp"
#include "registration/prepared_pairs.hpp"

namespace cinnabar::apps {

namespace {

using namespace registration;

struct MomentaArguments {
  std::string pairs, output, shard = "1/1", device = "auto";
  std::string iterations = "30x40x30", similarity = "ssd";
  double resolution_mm = 1.0;
  bool as_is = false;
  MomentaOptions options;
};

void parse_shard(const std::string& text, MomentaOptions& options) {
  char rest = 0;
  if (std::sscanf(text.c_str(), "%9d/%9d%c", &options.shard, &options.shards, &rest) != 2 ||
      options.shards < 1 || options.shard < 1 || options.shard > options.shards) {
    fail_input("--shard '", text, "' is not a part of the list: use 1/4 to 4/4 to share it among four runs");
  }
}

MomentaOptions resolve(const MomentaArguments& arguments, Device device) {
  MomentaOptions options = arguments.options;
  parse_shard(arguments.shard, options);
  RegistrationOptions& registration = options.registration;
  options.spacing_mm = arguments.resolution_mm;
  if (arguments.as_is) {
    registration.preparation.resolution_mm = arguments.resolution_mm;
  } else {
    registration.preparation.head_voxels = head_voxels_at(options.spacing_mm);
  }
  registration.matching.similarity = similarity_named(arguments.similarity);
  set_matching_scale(registration.matching, options.spacing_mm);
  registration.levels = parse_levels({arguments.iterations, "", ""});
  registration.affine.device = device;
  registration.preparation.device = device;
  return options;
}

/// One line a job on stderr, with the time the rest should take.
class CohortProgress {
 public:
  explicit CohortProgress(bool quiet) : quiet_(quiet) {}

  MomentaObserver observer() {
    MomentaObserver observer;
    observer.begin = [this](const MomentumJob&, std::size_t index, std::size_t jobs) {
      index_ = index;
      jobs_ = jobs;
    };
    observer.done = [this](const MomentumJob& job, const MomentumReport& report) {
      ++made_;
      if (quiet_) return;
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - began_;
      const double rest = elapsed.count() / made_ * static_cast<double>(jobs_ - index_ - 1);
      fmt::print(stderr, "[{}/{}] {}  NCC {:.4f} -> {:.4f}  {:.1f} s, about {:.0f} min to go\n", index_ + 1,
                 jobs_, job.name(), report.ncc_affine, report.ncc, report.seconds, std::ceil(rest / 60.0));
    };
    observer.failed = [this](const MomentumJob& job, const std::string& reason) {
      fmt::print(stderr, "[{}/{}] {}  failed: {}\n", index_ + 1, jobs_, job.name(), reason);
    };
    observer.keep_going = [] { return !interrupted(); };
    return observer;
  }

 private:
  bool quiet_;
  std::size_t index_ = 0, jobs_ = 0;
  int made_ = 0;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

void run(const MomentaArguments& arguments) {
  const DeviceChoice choice = choose_device(arguments.device);
  const std::vector<PairEntry> pairs = read_pairs(arguments.pairs);
  const MomentaOptions options = resolve(arguments, choice.device);
  catch_interrupts();
  CohortProgress progress(common_options().quiet);
  const MomentaTotals totals = make_momenta(pairs, arguments.output, options, progress.observer());
  if (!common_options().quiet) {
    fmt::print("{} momenta made, {} there already, in {}\n", totals.made, totals.kept, arguments.output);
  }
  if (totals.failed > 0) {
    fail_input(totals.failed, " of the pairs in ", arguments.pairs,
               " failed, each named above: mend or remove them and start the same command again");
  }
}

}  // namespace

void add_momenta(CLI::App& app) {
  auto arguments = std::make_shared<MomentaArguments>();
  MomentaOptions& options = arguments->options;
  MatchingOptions& matching = options.registration.matching;
  CLI::App& command = *app.add_subcommand(
      "momenta", "Match every pair of a list by LDDMM and keep the initial momenta, to train networks on");
  command.add_option("--pairs", arguments->pairs, "list of pairs (.csv): moving,fixed[,name][,split]")
      ->required();
  command.add_option("--output,--out,-o", arguments->output, "folder of the momenta")->required();
  command
      .add_option("--resolution", arguments->resolution_mm,
                  "spacing of the grids in mm for a brain of 1400 ml; larger and smaller ones get grids in "
                  "proportion, so that all have equally many voxels")
      ->check(kPositive)
      ->capture_default_str();
  command.add_flag("--no-head-scaling", arguments->as_is, "use that spacing for every brain");
  command.add_option("--iterations", arguments->iterations, "L-BFGS iterations per level, coarse to fine")
      ->capture_default_str();
  add_similarity(command, "--similarity", arguments->similarity, "data term, kept for the networks to come")
      ->capture_default_str();
  add_lncc_radius(command, matching.lncc_radius)->capture_default_str();
  command.add_option("--time-steps", matching.shooting.time_steps, "RK4 steps of the geodesic")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      .add_option("--augment", options.augmentations,
                  "match each pair so many times more, both images deformed at random")
      ->check(kNonNegative)
      ->capture_default_str();
  command
      .add_option("--augment-voxels", options.augmentation_voxels,
                  "root mean square displacement of those deformations")
      ->check(kPositive)
      ->capture_default_str();
  command.add_option("--seed", options.seed, "of those deformations")->capture_default_str();
  command.add_option("--shard", arguments->shard, "i/N: only every N-th pair, from the i-th on")
      ->capture_default_str();
  command.add_option("--device", arguments->device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  command.callback([arguments] { run(*arguments); });
}

}  // namespace cinnabar::apps
