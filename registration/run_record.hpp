#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "registration/registration.hpp"

namespace cinnabar::registration {

/// What the run record says about a run beyond its result.
struct RunContext {
  std::string version;
  std::string command;        ///< as typed
  std::string device_reason;  ///< why this device was chosen
  std::uint64_t seed = 0;
  int threads = 1;
};

/// Figures of a finished run as they stand in run.json.
struct RunFigures {
  double similarity_before = 0.0;  ///< NCC of the prepared images aligned by their headers
  double similarity_affine = 0.0;
  double similarity_after = 0.0;
  double nonpositive_jacobian_fraction = 0.0;
  double sd_log_jacobian = 0.0;
  double inverse_consistency_mm = 0.0;  ///< mean over the fixed image's foreground
  double inverse_consistency_mm_max = 0.0;
  std::string picture;  ///< path of the mosaic
};

/// The content of run.json.
nlohmann::ordered_json run_record(const Image& fixed, const Image& moving, const RegistrationResult& result,
                                  const RegistrationOptions& options, const RunContext& context,
                                  const RunFigures& figures);

}  // namespace cinnabar::registration
