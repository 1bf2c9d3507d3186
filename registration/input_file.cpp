#include "registration/input_file.hpp"

#include "engine/error.hpp"

namespace cinnabar::registration {

std::ifstream open_text(const std::filesystem::path& path, const char* what) {
  std::error_code ignored;
  const auto type = std::filesystem::status(path, ignored).type();
  if (type == std::filesystem::file_type::not_found) {
    fail_input("cannot read ", what, " '", path.string(), "': there is no such file; check the name");
  }
  if (type != std::filesystem::file_type::regular) {
    fail_input("cannot read ", what, " '", path.string(), "': it is not a regular file");
  }
  std::ifstream file(path);
  if (!file) {
    fail_input("cannot read ", what, " '", path.string(), "': no permission; make it readable (chmod +r)");
  }
  return file;
}

}  // namespace cinnabar::registration
