#include "models/quicksilver.hpp"

#include <cmath>
#include <string>

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "layers/activation.hpp"
#include "layers/conv3d.hpp"

namespace cinnabar {

namespace {

/// Extents behind a pooling convolution, 2 taps, stride 2, padding 1.
Shape pooled(const Shape& extents) {
  return {extents[0] / 2 + 1, extents[1] / 2 + 1, extents[2] / 2 + 1};
}

/// The un-pooling convolution that leads back to `extents`: 3 taps for odd extents, 2 for even ones.
ConvWindow unpooling(const Shape& extents) {
  ConvWindow window = conv_cubes(2, 1, 2);
  for (int axis = 0; axis < 3; ++axis) {
    window.kernel[static_cast<std::size_t>(axis)] = 2 + extents[axis] % 2;
  }
  return window;
}

/// Normal weights that keep the size of activations (He et al., ICCV 2015) and no biases. PyTorch's default,
/// with which the original began, shrinks them from layer to layer until the output hardly depends on the
/// input, and a training takes thousands of batches to get away from there. Momenta are small beside
/// intensities, and so are the first predictions.
void initialise(const std::vector<NamedVariable>& parameters, Generator& generator) {
  constexpr double kSlope = 0.25;  // of PReLU at its start
  constexpr double kOutputScale = 1.0 / 64;
  for (const auto& [name, variable] : parameters) {
    Variable parameter = variable;
    const Shape& shape = parameter.shape();
    if (name.ends_with(".bias")) parameter.set_value(Tensor::zeros(shape));
    if (shape.rank() != 5) continue;
    double scale = 1.0;
    // A tap of a transposed convolution of stride 2 reaches every eighth voxel.
    if (name.find("conv_unpooling") != std::string::npos) scale = std::sqrt(8.0);
    if (name.ends_with("_2.conv_output.weight")) scale = kOutputScale;
    const NoGrad quiet;
    parameter.set_value((scale * Variable(kaiming_normal(shape, generator, kSlope))).value());
  }
}

}  // namespace

/// Convolutions, activations and dropout one after another.
class Quicksilver::Block : public Sequential {
 public:
  enum class Part { inner, last };

  /// Draws initial values from `weights` and gives dropout layers streams of their own.
  struct Source {
    Generator weights;
    double dropout;
    std::uint64_t seed;
    Conv3dBackend backend;
    Conv3dPrecision precision;
    std::uint64_t streams = 0;

    /// The window with the backend that computes it, and how.
    ConvWindow computed(ConvWindow window) const {
      const bool strided = window.options.stride != std::array<std::int64_t, 3>{1, 1, 1};
      const bool needs_unit_stride = backend == Conv3dBackend::fft || backend == Conv3dBackend::direct;
      window.options.backend = strided && needs_unit_stride ? Conv3dBackend::by_rule : backend;
      window.options.precision = precision;
      return window;
    }
  };

  static std::unique_ptr<Block> encoder(std::int64_t in, std::int64_t out, Source& source) {
    auto block = std::make_unique<Block>();
    block->convolve("conv_input", in, out, source);
    block->activate("prelu1", source);
    block->convolve("conv_inblock1", out, out, source);
    block->activate("prelu2", source);
    block->convolve("conv_inblock2", out, out, source);
    block->activate("prelu3", source);
    block->add_named<Conv3dLayer>("conv_pooling", out, out, source.computed(conv_cubes(2, 1, 2)),
                                  source.weights);
    block->add_named<PRelu>("prelu4");
    return block;
  }

  /// `extents` are those of its result.
  static std::unique_ptr<Block> decoder(std::int64_t in, std::int64_t out, const Shape& extents, Part part,
                                        Source& source) {
    auto block = std::make_unique<Block>();
    block->add_named<ConvTranspose3dLayer>("conv_unpooling", in, in, source.computed(unpooling(extents)),
                                           source.weights);
    block->add_named<PRelu>("prelu1");
    block->convolve("conv_inblock1", in, in, source);
    block->activate("prelu2", source);
    block->convolve("conv_inblock2", in, in, source);
    block->activate("prelu3", source);
    block->convolve("conv_output", in, out, source);
    if (part == Part::inner) {
      block->activate("prelu4", source);
    } else {
      block->add_child("prelu4", block->unused_);
    }
    return block;
  }

  void sample(bool on) {
    for (DropoutLayer* layer : dropouts_) layer->always(on);
  }

 private:
  void convolve(const std::string& name, std::int64_t in, std::int64_t out, Source& source) {
    add_named<Conv3dLayer>(name, in, out, source.computed(conv_cubes(3, 1)), source.weights);
  }

  void activate(const std::string& name, Source& source) {
    add_named<PRelu>(name);
    if (source.dropout == 0.0) return;
    dropouts_.push_back(
        &add_named<DropoutLayer>("dropout_" + name, source.dropout, source.seed, ++source.streams));
  }

  std::vector<DropoutLayer*> dropouts_;
  PRelu unused_;
};

Quicksilver::Quicksilver(const QuicksilverOptions& options) : options_(options) {
  CINNABAR_CHECK(options.features >= 1, "quicksilver", "needs at least one feature, got ", options.features);
  CINNABAR_CHECK(
      options.patch.rank() == 3 && options.patch[0] >= 3 && options.patch[1] >= 3 && options.patch[2] >= 3,
      "quicksilver", "patches need extents (d, h, w) of at least 3, got ", options.patch);
  const std::int64_t features = options.features;
  const Shape half = pooled(options.patch);
  Block::Source source{Generator(options.seed), options.dropout, options.seed, options.backend,
                       options.precision};
  const auto add = [&](std::vector<std::unique_ptr<Block>>& blocks, const std::string& name,
                       std::unique_ptr<Block> block) {
    blocks.push_back(std::move(block));
    add_child(name + std::to_string(blocks.size()), *blocks.back());
  };
  for (const auto& [in, out] : {std::pair{std::int64_t{1}, features}, std::pair{features, 2 * features}}) {
    add(moving_, "encoder_m_", Block::encoder(in, out, source));
    add(target_, "encoder_t_", Block::encoder(in, out, source));
  }
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::string name = std::string("decoder_") + "xyz"[axis] + "_";
    add(decoders_[axis], name, Block::decoder(4 * features, 2 * features, half, Block::Part::inner, source));
    add(decoders_[axis], name, Block::decoder(2 * features, 1, options.patch, Block::Part::last, source));
  }
  initialise(named_parameters(), source.weights);
}

Quicksilver::~Quicksilver() = default;

Variable Quicksilver::forward(const Variable& patches) {
  const Shape& shape = patches.shape();
  CINNABAR_CHECK(shape.rank() == 5 && shape[1] == 2 && shape.without(0).without(0) == options_.patch,
                 "quicksilver", "takes patches [N, 2, ", options_.patch, "], got ", shape);
  const auto through = [](const std::vector<std::unique_ptr<Block>>& blocks, Variable x) {
    for (const auto& block : blocks) x = block->forward(x);
    return x;
  };
  const Variable code =
      concat({through(moving_, slice(patches, 1, 0, 1)), through(target_, slice(patches, 1, 1, 2))}, 1);
  return concat({through(decoders_[0], code), through(decoders_[1], code), through(decoders_[2], code)}, 1);
}

void Quicksilver::sample(bool on) {
  for (const auto* blocks : {&moving_, &target_, &decoders_[0], &decoders_[1], &decoders_[2]}) {
    for (const auto& block : *blocks) block->sample(on);
  }
}

}  // namespace cinnabar
