#pragma once

#include <functional>
#include <string_view>

#include "kernels/conv3d.hpp"

namespace cinnabar {

/// The three functions of Conv3d.
enum class Conv3dPass { forward, backward_input, backward_weight };

/// "gemm" and so on. Parsing throws InputError on a name that is none of them.
std::string_view name_of(Conv3dBackend backend);
Conv3dBackend parse_conv3d_backend(std::string_view name);

/// The backend that `options.backend` stands for: itself, or `rule` for by_rule, or for automatic the
/// fastest. `run(backend)` computes the pass; it is timed for every backend that can where choice_cache() has
/// no answer for this pass, shape, precision, dtype of `like`, device and number of CPU threads. Throws Error
/// where the device, the precision or the shape does not suit a named backend.
Conv3dBackend choose_conv3d_backend(const Conv3dOptions& options, Conv3dBackend rule, Conv3dPass pass,
                                    const Conv3dShape& shape, const Tensor& like,
                                    const std::function<void(Conv3dBackend)>& run);

}  // namespace cinnabar
