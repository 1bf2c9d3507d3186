#include "layers/sequential.hpp"

namespace cinnabar {

Variable Sequential::forward(const Variable& x) {
  Variable result = x;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (auto* open = dynamic_cast<EpilogueLayer*>(layers_[i].get())) {
      result = open->forward_and(result, [&](EpilogueInputs& epilogue, std::int64_t elements) {
        while (i + 1 < layers_.size() && layers_[i + 1]->join(epilogue, elements)) ++i;
      });
    } else {
      result = layers_[i]->forward(result);
    }
  }
  return result;
}

}  // namespace cinnabar
