#include <cstdio>
#include <memory>
#include <string>

#include "apps/commands.hpp"
#include "apps/network_options.hpp"
#include "engine/error.hpp"
#include "models/quicksilver_file.hpp"
#include "models/quicksilver_widen.hpp"

namespace cinnabar::apps {

namespace {

struct ConvertOptions {
  std::string input;
  std::string output;
  DType storage = DType::f32;
  bool correction = false;
  std::int64_t features = 0;  ///< 0: as many as it has
};

void convert(const ConvertOptions& options) {
  if (!options.output.ends_with(".safetensors")) {
    fail_input(options.output, ": only .safetensors files are written; give the output that ending");
  }
  LoadedQuicksilver loaded = load_quicksilver(options.input);
  if (options.correction) loaded.description.role = QuicksilverRole::correction;
  if (options.features > 0) loaded.network = widened(*loaded.network, options.features);
  save_quicksilver(options.output, *loaded.network, loaded.description, options.storage);
  if (common_options().quiet) return;
  std::printf("%s: %s network with %lld features, %lld weights\n", options.output.c_str(),
              name_of(loaded.description.role).c_str(),
              static_cast<long long>(loaded.network->options().features),
              static_cast<long long>(loaded.network->parameter_count()));
}

}  // namespace

void add_convert(CLI::App& app) {
  auto options = std::make_shared<ConvertOptions>();
  CLI::App* command = app.add_subcommand(
      "convert",
      "Convert a network: the original's .pth.tar, another storage, or more features for further training");
  command->add_option("input", options->input, "Network: .pth, .pth.tar or .safetensors")->required();
  command->add_option("output", options->output, "File to write: .safetensors")->required();
  add_storage_option(*command, options->storage);
  command->add_flag("--correction", options->correction,
                    "It is a correction network, which the original's files do not say");
  command
      ->add_option(
          "--features", options->features,
          "Widen the network to so many features, a multiple of its own; it computes the same until it is "
          "trained further")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1024}));
  command->callback([options] { convert(*options); });
}

}  // namespace cinnabar::apps
