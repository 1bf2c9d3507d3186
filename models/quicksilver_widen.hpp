#pragma once

#include "models/quicksilver.hpp"

namespace cinnabar {

/// A network with `features`, a multiple of the narrow one's, that computes the same function: each channel
/// stands there several times, and what reads it shares its weight among the copies in random proportions, so
/// that copies learn different things from then on (Chen, Goodfellow and Shlens, "Net2Net", ICLR 2016,
/// section 2.2). Training goes on from where the narrow network ended. `seed` is that of the proportions.
/// Throws InputError where `features` is no multiple.
std::unique_ptr<Quicksilver> widened(const Quicksilver& narrow, std::int64_t features,
                                     std::uint64_t seed = 0);

}  // namespace cinnabar
