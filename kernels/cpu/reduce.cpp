#include "kernels/reduce.hpp"

#include <type_traits>
#include <vector>

#include "engine/divide_up.hpp"
#include "kernels/parallel.hpp"
#include "kernels/reduce_math.hpp"

namespace cinnabar::cpu {

namespace {

constexpr std::int64_t kTask = 1 << 15;      // elements a task should have at least
constexpr std::int64_t kChunk = 1 << 16;     // elements of one partial sum
constexpr std::int64_t kRowChunk = 1 << 12;  // rows of one partial row
constexpr std::int64_t kColumns = 512;       // accumulators kept at a time: 4 KiB
constexpr int kLanes = 8;                    // independent accumulators, so that a run vectorises

/// The reduction as a compile-time constant, so that each loop holds one formula.
template <class Function>
void with_constant(Reduction op, const Function& fn) {
  switch (op) {
#define CINNABAR_CASE(NAME) \
  case Reduction::NAME:     \
    return fn(std::integral_constant<Reduction, Reduction::NAME>{});
    CINNABAR_CASE(sum)
    CINNABAR_CASE(prod)
    CINNABAR_CASE(nonzero_prod)
    CINNABAR_CASE(maximum)
    CINNABAR_CASE(minimum)
    CINNABAR_CASE(sum_abs)
    CINNABAR_CASE(sum_squares)
    CINNABAR_CASE(sum_squared_deviation)
    CINNABAR_CASE(sum_exp)
    CINNABAR_CASE(count_equal)
    CINNABAR_CASE(sum_products)
#undef CINNABAR_CASE
  }
}

template <class T>
struct Job {
  const T* x;
  const T* reference;
  ReductionAxes axes;
  double scale;
  T* output;
};

/// Terms of `count` elements in steps, on top of `start`.
template <Reduction op, class T>
double accumulate_run(const T* x, const T* factor, T reference, std::int64_t step, std::int64_t count,
                      double start) {
  const auto term = [&](std::int64_t i) {
    if constexpr (op == Reduction::sum_products) return reduction_term<double>(op, x[i], factor[i]);
    return reduction_term<double>(op, x[i], reference);
  };
  if (step != 1 || count < 2 * kLanes) {
    for (std::int64_t i = 0; i < count; ++i) start = reduction_combine(op, start, term(i * step));
    return start;
  }
  double lane[kLanes];
  for (double& value : lane) value = reduction_identity<double>(op);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lane[l] = reduction_combine(op, lane[l], term(i + l));
  }
  for (; i < count; ++i) start = reduction_combine(op, start, term(i));
  for (const double value : lane) start = reduction_combine(op, start, value);
  return start;
}

/// One accumulator per output element; long reductions are cut into chunks that are combined in order.
template <Reduction op, class T>
void reduce_each_output(const Job<T>& job) {
  const auto& [kept, reduced] = job.axes;
  const std::int64_t chunks = std::max<std::int64_t>(1, divide_up(reduced.numel, kChunk));
  const std::int64_t step = reduced.rank == 0 ? 1 : reduced.stride[reduced.rank - 1][0];
  std::vector<double> partial(chunks > 1 ? static_cast<std::size_t>(kept.numel * chunks) : 0);
  const std::int64_t per_task = std::max<std::int64_t>(1, std::min(reduced.numel, kChunk));
  parallel_for(kept.numel * chunks, divide_up(kTask, per_task), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t task = first; task < last; ++task) {
      const std::int64_t k = task / chunks;
      const std::int64_t start = task % chunks * kChunk;
      std::int64_t base[1];
      kept.template offsets<std::int64_t>(k, base);
      const T reference = job.reference != nullptr && op != Reduction::sum_products ? job.reference[k] : T(0);
      double sum = reduction_identity<double>(op);
      for_each_run(reduced, start, std::min(reduced.numel, start + kChunk),
                   [&](std::int64_t, std::int64_t count, const std::int64_t(&at)[1]) {
                     const std::int64_t offset = base[0] + at[0];
                     const T* factor = op == Reduction::sum_products ? job.reference + offset : nullptr;
                     sum = accumulate_run<op>(job.x + offset, factor, reference, step, count, sum);
                   });
      if (chunks > 1) {
        partial[static_cast<std::size_t>(task)] = sum;
      } else {
        job.output[k] = static_cast<T>(job.scale * sum);
      }
    }
  });
  if (chunks == 1) return;
  for (std::int64_t k = 0; k < kept.numel; ++k) {
    double sum = reduction_identity<double>(op);
    for (std::int64_t c = 0; c < chunks; ++c) {
      sum = reduction_combine(op, sum, partial[static_cast<std::size_t>(k * chunks + c)]);
    }
    job.output[k] = static_cast<T>(job.scale * sum);
  }
}

/// The innermost axis is kept: whole rows of accumulators advance together, in the order of memory.
template <Reduction op, class T>
void reduce_rows(const Job<T>& job) {
  const auto& [kept, reduced] = job.axes;
  const std::int64_t width = kept.extent[kept.rank - 1];
  const std::int64_t blocks = divide_up(width, kColumns);
  const std::int64_t chunks = std::max<std::int64_t>(1, divide_up(reduced.numel, kRowChunk));
  const std::int64_t step = reduced.rank == 0 ? 0 : reduced.stride[reduced.rank - 1][0];
  std::vector<double> partial(chunks > 1 ? static_cast<std::size_t>(kept.numel * chunks) : 0);
  const std::int64_t per_task =
      std::max<std::int64_t>(1, std::min(width, kColumns) * std::min(reduced.numel, kRowChunk));
  const std::int64_t tasks = kept.numel / width * blocks * chunks;
  parallel_for(tasks, divide_up(kTask, per_task), [&](std::int64_t first_task, std::int64_t last_task) {
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t chunk = task % chunks;
      const std::int64_t block = task / chunks % blocks;
      const std::int64_t k = task / (chunks * blocks) * width + block * kColumns;
      const std::int64_t columns = std::min(kColumns, width - block * kColumns);
      std::int64_t base[1];
      kept.template offsets<std::int64_t>(k, base);
      double row[kColumns];
      for (std::int64_t j = 0; j < columns; ++j) row[j] = reduction_identity<double>(op);
      const std::int64_t start = chunk * kRowChunk;
      for_each_run(reduced, start, std::min(reduced.numel, start + kRowChunk),
                   [&](std::int64_t, std::int64_t count, const std::int64_t(&at)[1]) {
                     for (std::int64_t i = 0; i < count; ++i) {
                       const std::int64_t offset = base[0] + at[0] + i * step;
                       const T* x = job.x + offset;
                       const T* r = op == Reduction::sum_products ? job.reference + offset
                                    : uses_reference(op)          ? job.reference + k
                                                                  : x;
                       for (std::int64_t j = 0; j < columns; ++j) {
                         row[j] = reduction_combine(op, row[j], reduction_term<double>(op, x[j], r[j]));
                       }
                     }
                   });
      for (std::int64_t j = 0; j < columns; ++j) {
        if (chunks > 1) {
          partial[static_cast<std::size_t>(chunk * kept.numel + k + j)] = row[j];
        } else {
          job.output[k + j] = static_cast<T>(job.scale * row[j]);
        }
      }
    }
  });
  if (chunks == 1) return;
  parallel_for(kept.numel, divide_up(kTask, chunks), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t k = first; k < last; ++k) {
      double sum = reduction_identity<double>(op);
      for (std::int64_t c = 0; c < chunks; ++c) {
        sum = reduction_combine(op, sum, partial[static_cast<std::size_t>(c * kept.numel + k)]);
      }
      job.output[k] = static_cast<T>(job.scale * sum);
    }
  });
}

void forward(Reduction op, const Tensor& x, const Tensor& reference, double scale, Tensor& output) {
  check_reduce(op, x, reference, output);
  dispatch_floating("reduce", x.dtype(), [&](auto element) {
    using T = decltype(element);
    Job<T> job{x.data<T>(), reference.defined() ? reference.data<T>() : nullptr,
               reduction_axes(x.shape(), output.shape()), scale, output.data<T>()};
    const StridedLoop<1>& kept = job.axes.kept;
    const bool rows = kept.rank > 0 && kept.stride[kept.rank - 1][0] == 1 && kept.extent[kept.rank - 1] >= 4;
    with_constant(op, [&](auto constant) {
      constexpr Reduction kOp = decltype(constant)::value;
      if (output.numel() == 0) return;
      rows ? reduce_rows<kOp>(job) : reduce_each_output<kOp>(job);
    });
  });
}

void backward(Reduction op, const Tensor& grad, const Tensor& x, const Tensor& reference, Tensor& grad_x) {
  check_reduce_backward(op, grad, x, reference, grad_x);
  const auto loop = broadcast_loop<1>("reduce", x.shape(), {grad.shape()});
  const std::int64_t step = loop.rank == 0 ? 1 : loop.stride[loop.rank - 1][0];
  dispatch_floating("reduce", x.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* g = grad.data<T>();
    const T* in = x.data<T>();
    const T* r = reference.data<T>();
    T* out = grad_x.data<T>();
    with_constant(op, [&](auto constant) {
      constexpr Reduction kOp = decltype(constant)::value;
      parallel_for(loop.numel, kTask, [&](std::int64_t first, std::int64_t last) {
        for_each_run(loop, first, last,
                     [&](std::int64_t start, std::int64_t count, const std::int64_t(&at)[1]) {
                       for (std::int64_t i = 0; i < count; ++i) {
                         const std::int64_t k = at[0] + i * step;
                         out[start + i] = reduction_gradient<T>(kOp, g[k], in[start + i], r[k]);
                       }
                     });
      });
    });
  });
}

void cumsum(const Tensor& x, int axis, bool reverse, Tensor& y) {
  check_cumsum(x, y);
  const AxisView view = axis_view(x.shape(), axis);
  const std::int64_t blocks = divide_up(view.inner, kColumns);
  dispatch_floating("cumsum", x.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(view.outer * blocks, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t task = first; task < last; ++task) {
        const std::int64_t column = task % blocks * kColumns;
        const std::int64_t columns = std::min(kColumns, view.inner - column);
        const std::int64_t base = task / blocks * view.length * view.inner + column;
        double row[kColumns] = {};
        for (std::int64_t i = 0; i < view.length; ++i) {
          const std::int64_t at = base + (reverse ? view.length - 1 - i : i) * view.inner;
          for (std::int64_t j = 0; j < columns; ++j) {
            row[j] += static_cast<double>(in[at + j]);
            out[at + j] = static_cast<T>(row[j]);
          }
        }
      }
    });
  });
}

}  // namespace

extern const Reduce reduce;
const Reduce reduce{forward, backward, cumsum};

}  // namespace cinnabar::cpu
