#include "apps/small_trainings.hpp"

#include "apps/number_checks.hpp"

namespace cinnabar::apps {

std::filesystem::path beside(const std::filesystem::path& output, const std::string& ending) {
  return output.parent_path() / (output.stem().string() + ending);
}

std::filesystem::path network_file(const std::filesystem::path& output, const std::vector<std::string>& kinds,
                                   const std::string& kind) {
  return kinds.size() == 1 ? output : beside(output, "_" + kind + ".safetensors");
}

std::int64_t epochs_of(std::int64_t batches, std::int64_t count, std::int64_t batch_size) {
  const std::int64_t each = (count + batch_size - 1) / batch_size;
  return (batches + each - 1) / each;
}

void add_seed_options(CLI::App& command, std::int64_t& seeds, std::uint64_t& first) {
  command.add_option("--seeds", seeds, "trainings of each kind")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command.add_option("--seed", first, "the first seed")->capture_default_str();
}

void add_pixel_options(CLI::App& command, std::int64_t& side, double& pixel_mm) {
  command.add_option("--side", side, "pixels of a slice along both axes")
      ->check(CLI::Range(16, 256))
      ->capture_default_str();
  command.add_option("--pixel", pixel_mm, "size of a pixel in mm")
      ->check(number_in(0.5, 20.0))
      ->capture_default_str();
}

}  // namespace cinnabar::apps
