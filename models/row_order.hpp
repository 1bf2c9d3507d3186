#pragma once

#include <vector>

#include "engine/tensor.hpp"

namespace cinnabar {

/// 0 .. count - 1 in the random order of that sequence (Fisher and Yates), the same for the same numbers.
std::vector<std::int64_t> shuffled_rows(std::int64_t count, std::uint64_t seed, std::uint64_t stream);

/// Copies of `count` rows of the outermost axis of a tensor on the CPU, in that order.
Tensor gather_rows(const Tensor& from, const std::int64_t* rows, std::int64_t count);

}  // namespace cinnabar
