#include "engine/error.hpp"

#include <cstring>

namespace cinnabar {

void fail(const char* op, const std::string& message, std::source_location where) {
  const char* file = where.file_name();
  for (const char* folder :
       {"/engine/", "/kernels/", "/autograd/", "/layers/", "/models/", "/registration/", "/apps/"}) {
    if (const char* found = std::strstr(file, folder)) file = found + 1;
  }
  throw Error(detail::concat(op, ": ", message, " (", file, ":", where.line(), ")"));
}

}  // namespace cinnabar
