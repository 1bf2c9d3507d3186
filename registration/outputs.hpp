#pragma once

#include <functional>
#include <string>
#include <vector>

#include "registration/run_record.hpp"

namespace cinnabar::registration {

/// Writes every output of a registration under `prefix` (docs/files.md lists them): affine, both warps on the
/// fixed image's grid, warped images both ways (raw intensities, one interpolation), momentum or velocity,
/// Jacobian, mosaic, report and run record, and what samples of a probabilistic network say. Each file
/// appears only when complete. `keep_going` returning false between two files stops with InterruptedRun.
RunFigures write_outputs(const std::string& prefix, const Image& fixed, const Image& moving,
                         const RegistrationResult& result, const RegistrationOptions& options,
                         const RunContext& context, const std::function<bool()>& keep_going);

/// A run the user stopped; nothing is left half-written.
class InterruptedRun : public Error {
 public:
  using Error::Error;
};

/// A word as a shell reads it.
std::string shell_quoted(const std::string& word);

/// The command with which ANTs makes the warped image from the files of a run.
std::string ants_command(const std::string& prefix, const std::string& fixed, const std::string& moving);

/// Throws InputError unless files can be created under the prefix, which `option` of the command names.
void require_writable_prefix(const std::string& prefix, const std::string& option = "--output");

/// Throws InputError if an output of a registration would replace one of its inputs.
void require_apart(const std::string& prefix, const std::vector<std::string>& inputs);

}  // namespace cinnabar::registration
