#include "apps/similarity_options.hpp"

namespace cinnabar::apps {

CLI::Option* add_similarity(CLI::App& command, const std::string& name, std::string& similarity,
                            const std::string& description) {
  return command.add_option(name, similarity, description)->check(CLI::IsMember({"ssd", "ncc", "lncc"}));
}

}  // namespace cinnabar::apps
