#pragma once

#include <string>
#include <vector>

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

/// Writes every output of a registration under `prefix` (docs/files.md lists them): affine, both warps on the
/// fixed image's grid, warped images both ways (raw intensities, one interpolation), momentum, Jacobian,
/// mosaic, report and run record. Each file appears only when complete. `keep_going` returning false between
/// two files stops with InterruptedRun.
RunFigures write_outputs(const std::string& prefix, const Image& fixed, const Image& moving,
                         const RegistrationResult& result, const RegistrationOptions& options,
                         const RunContext& context, const std::function<bool()>& keep_going);

/// A run the user stopped; nothing is left half-written.
class InterruptedRun : public Error {
 public:
  using Error::Error;
};

/// The command with which ANTs makes the warped image from the files of a run.
std::string ants_command(const std::string& prefix, const std::string& fixed, const std::string& moving);

/// Throws InputError unless files can be created under the prefix.
void require_writable_prefix(const std::string& prefix);

}  // namespace cinnabar::registration
