#pragma once

#include "layers/initializer.hpp"
#include "layers/module.hpp"

namespace cinnabar {

/// y = x weight^T + bias over the innermost axis; weight [out, in], bias [out]. Both start uniform in
/// +-1 / sqrt(in), as in PyTorch.
class Linear : public Layer {
 public:
  Linear(std::int64_t in, std::int64_t out, Generator& generator, bool with_bias = true);
  Variable forward(const Variable& x) override;

  Variable weight;
  Variable bias;  ///< undefined without bias
};

}  // namespace cinnabar
