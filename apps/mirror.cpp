#include <cstdio>
#include <memory>
#include <string>

#include "apps/commands.hpp"
#include "registration/mirror.hpp"
#include "registration/nifti.hpp"

namespace cinnabar::apps {

namespace {

using namespace cinnabar::registration;

struct MirrorOptions {
  std::string input;
  std::string output;
  std::string names;
  bool labels = false;
};

void run(const MirrorOptions& options) {
  std::size_t pairs = 0;
  if (options.labels || !options.names.empty()) {
    const LabelPairs exchanged = options.names.empty() ? LabelPairs{} : read_label_pairs(options.names);
    pairs = exchanged.size();
    write_labels(options.output, mirrored(read_labels(options.input), exchanged));
  } else {
    const Image image = mirrored(read_image(options.input));
    write_image(options.output, image, image.stored);
  }
  if (common_options().quiet) return;
  std::printf("wrote %s", options.output.c_str());
  if (pairs > 0) std::printf(": %zu pairs of labels changed sides", pairs);
  std::printf("\n");
}

}  // namespace

void add_mirror(CLI::App& app) {
  auto options = std::make_shared<MirrorOptions>();
  CLI::App* command =
      app.add_subcommand("mirror", "Mirror an image or labels left to right on the same grid");
  command->add_option("-i,--input", options->input, "Image or labels (.nii, .nii.gz)")->required();
  command->add_option("-o,--output", options->output, "File to write")->required();
  command->add_flag("--labels", options->labels, "The input holds labels, to be written in an integer type");
  command->add_option("--label-names", options->names,
                      "Table of labels and their names; those whose names differ only in a final _L and _R "
                      "change places, so that the left side keeps the left labels (implies --labels)");
  command->callback([options] { run(*options); });
}

}  // namespace cinnabar::apps
