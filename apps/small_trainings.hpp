#pragma once

#include <fmt/core.h>

#include <filesystem>
#include <string>
#include <vector>

#include "apps/commands.hpp"
#include "apps/interrupt.hpp"
#include "registration/outputs.hpp"

namespace cinnabar::apps {

// What the commands share that compare kinds of small networks, each trained with several seeds in one go.

/// A file beside `output`, with this ending in place of its own.
std::filesystem::path beside(const std::filesystem::path& output, const std::string& ending);

/// The network of one kind: NET.safetensors where there is only one, else NET_KIND.safetensors.
std::filesystem::path network_file(const std::filesystem::path& output, const std::vector<std::string>& kinds,
                                   const std::string& kind);

/// As many epochs of `count` items as come to about so many batches.
std::int64_t epochs_of(std::int64_t batches, std::int64_t count, std::int64_t batch_size);

/// Trains to the last epoch and returns its loss, which --verbose shows with so many digits. Throws
/// InterruptedRun once the user asks to stop.
template <class Training>
double train_epochs(Training& training, std::int64_t epochs, const std::string& label, int digits = 4) {
  double loss = 0.0;
  while (training.epochs_done() < epochs) {
    if (interrupted()) throw registration::InterruptedRun("interrupted; the table is not written");
    loss = training.epoch();
    if (common_options().verbose) {
      fmt::print(stderr, "{} epoch {}: loss {:.{}f}\n", label, training.epochs_done(), loss, digits);
    }
  }
  return loss;
}

void add_seed_options(CLI::App& command, std::int64_t& seeds, std::uint64_t& first);
/// --side, --pixel: how slices are cut.
void add_pixel_options(CLI::App& command, std::int64_t& side, double& pixel_mm);

}  // namespace cinnabar::apps
