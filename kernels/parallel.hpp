#pragma once

#include <cstdint>
#include <exception>
#include <vector>

namespace cinnabar {

/// Runs body(first, last) over [0, count) in chunks of `grain` on the OpenMP threads. Which thread runs which
/// chunk never changes a result: bodies write disjoint outputs. Of what bodies throw, one exception is thrown
/// again here, after all chunks.
template <class Body>
void parallel_for(std::int64_t count, std::int64_t grain, const Body& body) {
  const std::int64_t chunks = (count + grain - 1) / grain;
  if (chunks <= 1) {
    if (count > 0) body(std::int64_t{0}, count);
    return;
  }
  std::exception_ptr failure;  // one that left the parallel region would end the process
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::int64_t first = chunk * grain;
    const std::int64_t last = first + grain < count ? first + grain : count;
    try {
      body(first, last);
    } catch (...) {
#pragma omp critical(cinnabar_parallel_failure)
      failure = std::current_exception();
    }
  }
  if (failure != nullptr) std::rethrow_exception(failure);
}

/// Sum of part(first, last) over fixed chunks of [0, count), added in order: the same bits for any number of
/// threads.
template <class Part>
double parallel_sum(std::int64_t count, std::int64_t grain, const Part& part) {
  const std::int64_t chunks = (count + grain - 1) / grain;
  std::vector<double> partial(static_cast<std::size_t>(chunks), 0.0);
  parallel_for(count, grain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t start = first; start < last; start += grain) {
      const std::int64_t end = start + grain < last ? start + grain : last;
      partial[static_cast<std::size_t>(start / grain)] = part(start, end);
    }
  });
  double sum = 0.0;
  for (const double value : partial) sum += value;
  return sum;
}

}  // namespace cinnabar
