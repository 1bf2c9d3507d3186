// cinnabar register: affine alignment and a geodesic between two scans, optimised or predicted.

#include <fmt/core.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "apps/commands.hpp"
#include "apps/device_choice.hpp"
#include "apps/interrupt.hpp"
#include "apps/number_checks.hpp"
#include "apps/progress.hpp"
#include "apps/register_method.hpp"
#include "apps/schedule.hpp"
#include "apps/similarity_options.hpp"
#include "registration/affine_transform.hpp"
#include "registration/nifti.hpp"
#include "registration/outputs.hpp"

namespace cinnabar::apps {

namespace {

using namespace registration;

struct RegisterArguments {
  std::string fixed, moving, output, fixed_mask, initial_transform;
  std::string affine = "auto", similarity = "lncc";
  std::string iterations = "100x60x30", shrink, smoothing;
  std::string device = "auto";
  std::uint64_t seed = 0;
  std::optional<double> sigma, alpha, beta;  ///< in voxels; by the grid's spacing when not given
  std::optional<int> lncc_radius, image_factor;
  bool no_crop = false, no_histogram_matching = false, dry_run = false;
  MethodArguments method;
  RegistrationOptions options;
};

AffineModel parse_affine(const std::string& name) {
  return name == "none" ? AffineModel::none : name == "rigid" ? AffineModel::rigid : AffineModel::affine;
}

/// Decides how fine the images are and the registration grid, whose spacing it returns. A resolution is that
/// of the images, but where a network predicts on a grid of its own.
double choose_grids(const RegisterArguments& arguments, const Image& fixed, RegistrationOptions& options) {
  const Geometry grid = registration_grid(fixed, options.preparation);
  const double spacing_mm = grid.spacing_mm()[0];
  if (options.levels.empty()) return spacing_mm;
  if (options.predictor) {
    options.image_factor = arguments.image_factor.value_or(default_image_factor(fixed, spacing_mm));
    return spacing_mm;
  }
  options.image_factor = arguments.image_factor.value_or(default_image_factor(grid));
  options.preparation.resolution_mm = spacing_mm * options.image_factor;
  return options.preparation.resolution_mm;
}

RegistrationOptions resolve(const RegisterArguments& arguments, const Image& fixed, Device device) {
  RegistrationOptions options = arguments.options;
  options.matching.similarity = similarity_named(arguments.similarity);
  options.levels = parse_levels({arguments.iterations, arguments.shrink, arguments.smoothing});
  options.affine.model = parse_affine(arguments.affine);
  options.affine.device = device;
  options.preparation.device = device;
  options.preparation.crop = !arguments.no_crop;
  if (!arguments.initial_transform.empty()) {
    options.initial = read_affine(arguments.initial_transform).matrix;
  }
  choose_method(arguments.method, arguments.seed, options);
  const double spacing_mm = choose_grids(arguments, fixed, options);
  if (!options.predictor) set_matching_scale(options.matching, spacing_mm);
  if (arguments.alpha) options.matching.shooting.fluid.alpha = *arguments.alpha;
  if (arguments.beta) options.matching.shooting.fluid.beta = *arguments.beta;
  options.matching.sigma = arguments.sigma ? *arguments.sigma : default_sigma(options, spacing_mm);
  options.matching.lncc_radius =
      arguments.lncc_radius.value_or(default_lncc_radius(options, spacing_mm / options.image_factor));
  const bool by_intensities = method_of(options) != "lddmm" || options.matching.similarity == Similarity::ssd;
  options.preparation.match_histograms = !arguments.no_histogram_matching && by_intensities;
  return options;
}

void print_plan(const Image& fixed, const RegistrationOptions& options, const DeviceChoice& choice) {
  const Geometry grid = registration_grid(fixed, options.preparation);
  fmt::print("device          {} ({})\n", detail::concat(choice.device), choice.reason);
  fmt::print("method          {}\n", method_of(options));
  fmt::print("fixed image     {}\n", describe(fixed.geometry));
  fmt::print("largest grid    {}\n", describe(grid));
  if (options.image_factor > 1) {
    fmt::print("finest images   {}\n", describe(refined(grid, options.image_factor)));
  }
  fmt::print("memory at most  {} MiB\n", estimated_peak_bytes(grid.shape(), options) >> 20);
}

void print_prediction(const MomentumPrediction& prediction) {
  fmt::print("patches            {}\n", prediction.patches);
  if (prediction.kept_length < 1.0) {
    fmt::print("shortened          the predicted momentum, to {:.2f} of its length: beyond that it folds\n",
               prediction.kept_length);
  }
  if (!prediction.samples) return;
  fmt::print("samples            {} drawn, {} diverged and left out\n",
             prediction.samples->kept + prediction.samples->diverged, prediction.samples->diverged);
}

void print_result(const RunFigures& figures, const RegistrationResult& result, const std::string& output) {
  fmt::print("similarity (NCC)   {:.4f} by header, {:.4f} affine, {:.4f} registered\n",
             figures.similarity_before, figures.similarity_affine, figures.similarity_after);
  fmt::print("non-positive Jac.  {:.6f} %\n", 100.0 * figures.nonpositive_jacobian_fraction);
  fmt::print("SD log Jacobian    {:.4f}\n", figures.sd_log_jacobian);
  fmt::print("inverse error      {:.4f} mm mean, {:.4f} mm max\n", figures.inverse_consistency_mm,
             figures.inverse_consistency_mm_max);
  if (std::abs(figures.similarity_after) < 0.2) {
    fmt::print(
        "caution            the images do not match: check their orientation, or start from an affine "
        "by --initial-transform\n");
  }
  if (result.prediction) print_prediction(*result.prediction);
  if (result.velocity.defined() && result.smallest_jacobian <= 0.0) {
    fmt::print("caution            the map folds: train the network with a larger --smoothness\n");
  }
  if (result.prediction && result.smallest_jacobian <= 0.0) {
    fmt::print("caution            the predicted map folds: --method quicksilver+lddmm mends that\n");
  }
  if (result.reason) {
    fmt::print("stopped            {} after {} iterations\n", describe(*result.reason), result.iterations);
  }
  for (const StageTime& stage : result.stages) {
    fmt::print("{:<18} {:.2f} s\n", stage.stage, stage.seconds);
  }
  fmt::print("altogether         {:.1f} s\n", result.seconds);
  fmt::print("picture            {}\n", figures.picture);
  fmt::print("written            {}*\n", output);
}

void require_weights(const Image& mask) {
  const float* value = mask.voxels.data<float>();
  const auto [least, greatest] = std::minmax_element(value, value + mask.voxels.numel());
  if (*least < 0.0f) fail_input(mask.path, ": the mask has negative weights: give 0 where nothing counts");
  if (*greatest == 0.0f) fail_input(mask.path, ": the mask is 0 everywhere: nothing would count");
}

void run(const RegisterArguments& arguments) {
  const CommonOptions& common = common_options();
  const DeviceChoice choice = choose_device(arguments.device);
  const Image fixed = read_image(arguments.fixed), moving = read_image(arguments.moving);
  const RegistrationOptions options = resolve(arguments, fixed, choice.device);
  std::optional<Image> mask;
  if (!arguments.fixed_mask.empty()) {
    mask = read_image(arguments.fixed_mask);
    if (!same_grid(mask->geometry, fixed.geometry)) {
      fail_input(arguments.fixed_mask, ": the mask's grid (", describe(mask->geometry),
                 ") is not the fixed image's (", describe(fixed.geometry), "): resample it to ",
                 arguments.fixed);
    }
    require_weights(*mask);
  }
  if (arguments.dry_run || common.verbose) print_plan(fixed, options, choice);
  if (arguments.dry_run) return;
  require_writable_prefix(arguments.output);
  require_apart(arguments.output,
                {arguments.fixed, arguments.moving, arguments.fixed_mask, arguments.initial_transform});

  catch_interrupts();
  Progress progress(common.quiet     ? Verbosity::quiet
                    : common.verbose ? Verbosity::verbose
                                     : Verbosity::normal);
  const auto keep_going = [] { return !interrupted(); };
  RegistrationObserver observer;
  observer.stage = [&](const std::string& stage) {
    if (interrupted()) throw InterruptedRun("interrupted");
    progress.stage(stage);
  };
  observer.progress = [&](const LevelProgress& step) {
    progress.step(step);
    return keep_going();
  };
  observer.patches = [&](std::int64_t done, std::int64_t total) {
    if (interrupted()) throw InterruptedRun("interrupted");
    progress.count("patch", done, total);
  };
  const RegistrationResult result =
      register_images(fixed, moving, mask ? &*mask : nullptr, options, observer);
  if (interrupted()) throw InterruptedRun("interrupted");
  progress.stage("write");
  const RunContext context{CINNABAR_VERSION, command_line(), choice.reason, arguments.seed,
                           omp_get_max_threads()};
  const RunFigures figures =
      write_outputs(arguments.output, fixed, moving, result, options, context, keep_going);
  if (common.quiet) return;
  print_result(figures, result, arguments.output);
  fmt::print("the same with ANTs  {}\n", ants_command(arguments.output, arguments.fixed, arguments.moving));
}

void add_model_options(CLI::App& command, RegisterArguments& arguments) {
  RegistrationOptions& options = arguments.options;
  MatchingOptions& matching = options.matching;
  add_similarity(command, "--similarity", arguments.similarity, "data term")->capture_default_str();
  add_lncc_radius(command, arguments.lncc_radius)
      ->description("half width of the LNCC window, voxels (default: 2.4 mm)");
  command
      .add_option(
          "--sigma", arguments.sigma,
          "noise level of the data term, smaller fits more closely (default: 0.2 x spacing in mm for lncc, "
          "else 0.06 x)")
      ->check(kPositive);
  command
      .add_option("--alpha", arguments.alpha,
                  "weight of the Laplacian in L, in voxels (default: 0.8 / squared spacing in mm)")
      ->check(kNonNegative);
  command.add_option("--beta", arguments.beta, "weight of grad(div) in L, in voxels (default: as alpha's)")
      ->check(kNonNegative);
  command.add_option("--gamma", matching.shooting.fluid.gamma, "weight of the identity in L")
      ->check(kPositive)
      ->capture_default_str();
  command.add_option("--power", matching.shooting.fluid.power, "power of L: 1 as Quicksilver, 2 smoother")
      ->check(CLI::Range(1, 4))
      ->capture_default_str();
  command.add_option("--time-steps", matching.shooting.time_steps, "RK4 steps of the geodesic")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      .add_option("--inverse-iterations", matching.shooting.inverse_iterations,
                  "per update of the inverse map")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command
      .add_option("--relative-decrease", options.lbfgs.relative_decrease,
                  "stop a level when the energy fell by less over three iterations")
      ->check(kNonNegative)
      ->capture_default_str();
}

void add_schedule_options(CLI::App& command, RegisterArguments& arguments) {
  command.add_option("--iterations", arguments.iterations, "L-BFGS iterations per level, coarse to fine")
      ->capture_default_str();
  command.add_option("--shrink", arguments.shrink, "shrink factor per level (default: halved, ending at 1)");
  command.add_option("--smoothing", arguments.smoothing,
                     "Gaussian sigma per level in voxels of the finest images (default: 0.45 x shrink)");
  command
      .add_option("--resolution", arguments.options.preparation.resolution_mm,
                  "spacing of the finest images in mm, of the momentum with a network (default: the fixed "
                  "image's smallest, that of the network)")
      ->check(kPositive);
  command
      .add_option("--image-factor", arguments.image_factor,
                  "how many times as fine as the momentum's grid that of the images is (default: what brings "
                  "the momentum to 2 mm, with a network the images to the fixed one's spacing, at most 3)")
      ->check(CLI::Range(1, 16));
}

}  // namespace

void add_register(CLI::App& app) {
  auto arguments = std::make_shared<RegisterArguments>();
  CLI::App& command = *app.add_subcommand("register", "Register a moving scan to a fixed one");
  command.add_option("--fixed,-f,--ref", arguments->fixed, "fixed (target) image")->required();
  command.add_option("--moving,-m,--flo", arguments->moving, "moving (source) image")->required();
  command.add_option("--output,-o", arguments->output, "prefix of all outputs")->required();
  command.add_option("--fixed-mask,-x", arguments->fixed_mask, "weights on the fixed image's grid");
  command.add_option("--affine", arguments->affine, "linear stage before the geodesic")
      ->check(CLI::IsMember({"auto", "rigid", "affine", "none"}))
      ->capture_default_str();
  command.add_option("--initial-transform,-r", arguments->initial_transform,
                     "affine to start from: ITK .mat, .tfm or .txt, or a 4x4 text matrix");
  add_method_options(command, arguments->method);
  add_schedule_options(command, *arguments);
  add_model_options(command, *arguments);
  command.add_flag("--no-crop", arguments->no_crop, "keep the background around both heads");
  command.add_flag("--no-histogram-matching", arguments->no_histogram_matching,
                   "compare intensities as they are");
  command.add_option("--device", arguments->device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  command
      .add_option("--seed", arguments->seed, "of a probabilistic network's samples; nothing else is random")
      ->capture_default_str();
  command.add_flag("--dry-run", arguments->dry_run, "print the plan and the memory it needs, then stop");
  command.callback([arguments, &command] {
    require_options_of_method(command, arguments->method);
    run(*arguments);
  });
}

}  // namespace cinnabar::apps
