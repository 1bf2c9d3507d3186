#include "apps/register_method.hpp"

#include <filesystem>
#include <vector>

#include "apps/network_options.hpp"

namespace cinnabar::apps {

namespace {

using namespace registration;

constexpr const char* kVoxelmorph = "voxelmorph";
constexpr const char* kPrediction = "quicksilver_prediction.safetensors";
constexpr const char* kCorrection = "quicksilver_correction.safetensors";

/// A file that comes with the program, in share/cinnabar beside it (build folder) or beside its folder
/// (installed); empty where there is none.
std::filesystem::path shared_file(const char* name) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  for (const std::filesystem::path& prefix : {folder, folder.parent_path()}) {
    const std::filesystem::path file = prefix / "share" / "cinnabar" / name;
    if (std::filesystem::exists(file, error)) return file;
  }
  return {};
}

/// The files a run uses: what was named, or the default networks.
QuicksilverSettings networks_of(const MethodArguments& arguments) {
  QuicksilverSettings settings;
  settings.network = arguments.network;
  if (settings.network.empty()) settings.network = shared_file(kPrediction);
  if (settings.network.empty()) {
    fail_input("--method ", arguments.method, " finds no default network (share/cinnabar/", kPrediction,
               " beside the program): name one with --network");
  }
  if (arguments.correction == "none") return settings;
  if (!arguments.correction.empty()) {
    settings.correction = arguments.correction;
  } else if (arguments.network.empty()) {
    settings.correction = shared_file(kCorrection);
  }
  return settings;
}

}  // namespace

void add_method_options(CLI::App& command, MethodArguments& arguments) {
  command
      .add_option("--method", arguments.method,
                  "lddmm optimises, quicksilver predicts by a network, quicksilver+lddmm goes on from there, "
                  "voxelmorph registers by a network in one pass")
      ->check(CLI::IsMember({"lddmm", "quicksilver", "quicksilver+lddmm", "voxelmorph"}))
      ->capture_default_str();
  command.add_option(
      "--network", arguments.network,
      "prediction network (default: the one that comes with this program), or that of voxelmorph");
  command.add_option("--correction", arguments.correction,
                     "correction network, or none (default: that of the default network)");
  command
      .add_option("--corrections", arguments.corrections,
                  "how often the correction network is asked, each time for what is left")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command
      .add_option(
          "--samples", arguments.samples,
          "drawn from a probabilistic network, for its mean and for maps of the deformation's mean and "
          "variance; 0 predicts once")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  command
      .add_option("--refine-iterations", arguments.refine_iterations,
                  "L-BFGS iterations of quicksilver+lddmm, on the network's grid")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command
      .add_option("--batch", arguments.batch, "patches predicted at a time: takes memory, changes no result")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--stride", arguments.stride, "distance of neighbouring patches in voxels")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  add_precision_option(command, arguments.precision);
}

void require_options_of_method(const CLI::App& command, const MethodArguments& arguments) {
  const bool voxelmorph = arguments.method == kVoxelmorph;
  const bool predicts = arguments.method != "lddmm", refines = arguments.method == "quicksilver+lddmm";
  const auto refuse = [&](std::initializer_list<const char*> names, const char* reason) {
    for (const char* name : names) {
      if (command.count(name) > 0) fail_input(name, " is not for --method ", arguments.method, ": ", reason);
    }
  };
  if (predicts) {
    refuse({"--alpha", "--beta", "--gamma", "--power", "--time-steps", "--inverse-iterations"},
           "the network fixes the metric");
    refuse({"--iterations", "--shrink", "--smoothing"}, "there are no levels");
  } else {
    refuse({"--network", "--correction", "--corrections", "--samples", "--batch", "--stride", "--precision"},
           "it has no network");
  }
  if (voxelmorph) {
    refuse({"--correction", "--corrections", "--samples", "--batch", "--stride", "--precision"},
           "its network sees whole images, once");
  }
  if (!refines) refuse({"--refine-iterations"}, "it refines no prediction");
  if (predicts && !refines) {
    refuse({"--similarity", "--lncc-radius", "--sigma", "--relative-decrease", "--image-factor"},
           "it does not optimise");
  }
}

void choose_method(const MethodArguments& arguments, std::uint64_t seed, RegistrationOptions& options) {
  if (arguments.method == "lddmm") return;
  if (arguments.method == kVoxelmorph) {
    if (arguments.network.empty()) {
      fail_input("--method ", kVoxelmorph,
                 " needs a network that cinnabar train voxelmorph made: ", "name it with --network");
    }
    register_by(std::make_shared<const VoxelmorphPredictor>(arguments.network, options.preparation.device),
                options);
    return;
  }
  QuicksilverSettings settings = networks_of(arguments);
  settings.corrections = arguments.corrections;
  settings.samples = arguments.samples;
  settings.seed = seed;
  settings.patches.stride = arguments.stride;
  settings.patches.batch_size = arguments.batch;
  settings.precision = arguments.precision;
  settings.device = options.preparation.device;
  options.levels.clear();
  if (arguments.method == "quicksilver+lddmm") options.levels = {{1.0, 0.0, arguments.refine_iterations}};
  start_from(std::make_shared<QuicksilverPredictor>(settings), options);
}

}  // namespace cinnabar::apps
