#include "apps/similarity_options.hpp"

#include "kernels/lncc.hpp"

namespace cinnabar::apps {

CLI::Option* add_similarity(CLI::App& command, const std::string& name, std::string& similarity,
                            const std::string& description) {
  return command.add_option(name, similarity, description)->check(CLI::IsMember({"ssd", "ncc", "lncc"}));
}

CLI::Option* add_lncc_radius(CLI::App& command, int& radius) {
  return command.add_option("--lncc-radius", radius, "half width of the LNCC window, voxels")
      ->check(CLI::Range(1, kLargestLnccRadius))
      ->capture_default_str();
}

}  // namespace cinnabar::apps
