#pragma once

#include "data/batch.hpp"
#include "models/lddmm_shooting.hpp"
#include "models/quicksilver.hpp"

namespace cinnabar {

/// What a correction network is to learn from a pair of "moving", "target" [1, 1, D, H, W] and their momentum
/// m [1, 3, D, H, W] on the prediction network's device (Yang et al., NeuroImage 2017, section 2.3): the same
/// three names with the target I1 pulled back, I1 o phi, along the geodesic of the predicted momentum m_p,
/// and with the residual m - m_p. Throws DivergedFlow where m_p cannot be shot.
Batch correction_lesson(Quicksilver& prediction, const Batch& pair, const ShootingOptions& shooting);

}  // namespace cinnabar
