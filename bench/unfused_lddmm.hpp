#pragma once

#include "models/lddmm_matching.hpp"

namespace cinnabar::bench {

/// The reference gradient from one op per formula symbol, as a tensor library without this project's kernels
/// would run it: inverse maps by a loop of whole-grid samplings with no early exit, coadjoint actions from
/// the nine entries of the Jacobian.
Tensor unfused_reference_gradient(const ImagePair& pair, const Tensor& momentum,
                                  const MatchingOptions& options);

}  // namespace cinnabar::bench
