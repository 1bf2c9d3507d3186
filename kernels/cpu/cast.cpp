#include "kernels/cast.hpp"

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr std::int64_t kGrain = 1 << 15;  // elements a task: 128 KiB of f32

void convert(const Tensor& from, Tensor& to) {
  check_cast(from, to);
  dispatch_stored("cast", from.dtype(), [&](auto from_element) {
    dispatch_stored("cast", to.dtype(), [&](auto to_element) {
      using From = decltype(from_element);
      using To = decltype(to_element);
      const From* const in = from.data<From>();
      To* const out = to.data<To>();
      parallel_for(from.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i) out[i] = cast_element<To>(in[i]);
      });
    });
  });
}

}  // namespace

extern const Cast cast;
const Cast cast{convert};

}  // namespace cinnabar::cpu
