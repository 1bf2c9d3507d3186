#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace cinnabar::apps {

/// Options every subcommand takes, before or after its name.
struct CommonOptions {
  int threads = 0;  ///< 0: as many as the machine has
  bool quiet = false;
  bool verbose = false;
};
const CommonOptions& common_options();

/// The command as typed, quoted for a shell: what a run record keeps.
const std::string& command_line();

// One per file of this folder: adds the subcommand, its options and its callback. A callback throws
// InputError (or Error) to end with exit code 1, and CLI::ValidationError to end with exit code 2.
void add_register(CLI::App& app);
void add_selftest(CLI::App& app);
void add_apply(CLI::App& app);
void add_jacobian(CLI::App& app);
void add_measure(CLI::App& app);
void add_convert(CLI::App& app);
void add_info(CLI::App& app);
void add_mirror(CLI::App& app);
void add_momenta(CLI::App& app);
void add_train(CLI::App& app);
void add_train_quicksilver(CLI::App& train);
void add_train_stn(CLI::App& train);
void add_train_voxelmorph(CLI::App& train);
void add_train_coords(CLI::App& train);
void add_train_siamese(CLI::App& train);

}  // namespace cinnabar::apps
