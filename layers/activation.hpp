#pragma once

#include "layers/module.hpp"

namespace cinnabar {

/// x where x > 0, else weight x, with one learned weight or one per channel (axis 1). Starts at 0.25 (He et
/// al., ICCV 2015).
class PRelu : public Layer {
 public:
  explicit PRelu(std::int64_t weights = 1, double start = 0.25);
  Variable forward(const Variable& x) override;
  bool join(EpilogueInputs& epilogue, std::int64_t elements) override;

  Variable weight;
};

class Relu : public Layer {
 public:
  Variable forward(const Variable& x) override;
  bool join(EpilogueInputs& epilogue, std::int64_t elements) override;
};

class LeakyRelu : public Layer {
 public:
  explicit LeakyRelu(double slope = 0.01) : slope_(slope) {}
  Variable forward(const Variable& x) override;
  bool join(EpilogueInputs& epilogue, std::int64_t elements) override;

 private:
  double slope_;
};

class Elu : public Layer {
 public:
  explicit Elu(double alpha = 1.0) : alpha_(alpha) {}
  Variable forward(const Variable& x) override;

 private:
  double alpha_;
};

class Sigmoid : public Layer {
 public:
  Variable forward(const Variable& x) override;
};

class Tanh : public Layer {
 public:
  Variable forward(const Variable& x) override;
};

/// Over one axis, the channels unless said otherwise.
class Softmax : public Layer {
 public:
  explicit Softmax(int axis = 1) : axis_(axis) {}
  Variable forward(const Variable& x) override;

 private:
  int axis_;
};

}  // namespace cinnabar
