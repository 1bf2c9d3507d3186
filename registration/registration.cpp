#include "registration/registration.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/reduce.hpp"
#include "autograd/similarity.hpp"
#include "autograd/warp.hpp"

namespace cinnabar::registration {

namespace {

/// Fields of three components alive at the peak of one evaluation with its gradient (measured with the
/// storage counters): the graph of all steps, or the states between steps and the graph of one.
double evaluation_fields(int time_steps, bool checkpointed) {
  return checkpointed ? 2.0 * time_steps + 34.0 : 16.0 * time_steps + 16.0;
}

/// Fields that the line search and the image side hold besides.
constexpr double kOptimiserFields = 8.0;

constexpr int kMostImageFactor = 3;

/// Fields on a grid of images that is finer than the registration grid: the refined flow, what warping and
/// comparing images keep, and their gradients.
constexpr double kRefinedFields = 9.0;

std::size_t matching_bytes(const Shape& grid, const RegistrationOptions& options, bool checkpointed) {
  const double factor = options.image_factor;
  const double voxels =
      static_cast<double>(grid[2]) * static_cast<double>(grid[3]) * static_cast<double>(grid[4]);
  const double fields = evaluation_fields(options.matching.shooting.time_steps, checkpointed) +
                        2.0 * options.lbfgs.history + kOptimiserFields;
  const double refined_fields = factor > 1.0 ? kRefinedFields * factor * factor * factor : 0.0;
  return static_cast<std::size_t>(voxels * 3.0 * sizeof(float) * (fields + refined_fields));
}

std::size_t available_bytes(Device device) {
  const DeviceProperties properties = device_properties(device);
  return device.is_cpu() ? properties.total_bytes : properties.free_bytes;
}

double similarity_ncc(const Tensor& moving, const PreparedPair& prepared) {
  const NoGrad quiet;
  return 1.0 - ncc_loss(Variable(moving), Variable(prepared.pair.fixed), prepared.mask).value().item();
}

double similarity_ssd(const Tensor& moving, const PreparedPair& prepared) {
  const NoGrad quiet;
  const double voxels = prepared.mask.defined() ? sum(Variable(prepared.mask)).value().item()
                                                : static_cast<double>(prepared.pair.fixed.numel());
  return ssd(Variable(moving), Variable(prepared.pair.fixed), prepared.mask).value().item() / voxels;
}

/// Tells an observer where a run stands, and keeps how long its stages took.
class StageClock {
 public:
  StageClock(const RegistrationObserver& observer, Device device) : observer_(observer), device_(device) {}

  void begin(const std::string& stage) {
    end();
    if (observer_.stage) observer_.stage(stage);
    stages_.push_back({stage, 0.0});
  }
  /// All stages so far.
  std::vector<StageTime> end() {
    synchronize(device_);
    const auto now = std::chrono::steady_clock::now();
    if (!stages_.empty()) stages_.back().seconds += std::chrono::duration<double>(now - began_).count();
    began_ = now;
    return stages_;
  }

 private:
  const RegistrationObserver& observer_;
  Device device_;
  std::vector<StageTime> stages_;
  std::chrono::steady_clock::time_point began_;
};

/// Finds the velocity of the prepared pair, and its flow.
void predict_velocity(const PreparedPair& prepared, const RegistrationOptions& options, StageClock& clock,
                      RegistrationResult& result) {
  VelocityPrediction found =
      options.voxelmorph->predict(prepared.pair, [&](const std::string& stage) { clock.begin(stage); });
  result.velocity = std::move(found.velocity);
  result.flow = std::move(found.flow);
}

/// Predicts the momentum of the prepared pair, and its geodesic.
void predict_momentum(const PreparedPair& prepared, const RegistrationOptions& options,
                      const RegistrationObserver& observer, StageClock& clock, RegistrationResult& result) {
  using Infeasible = QuicksilverPredictor::Infeasible;
  const PredictionObserver watch{[&](const std::string& stage) { clock.begin(stage); }, observer.patches};
  result.prediction = options.predictor->predict(
      prepared.pair, options.levels.empty() ? Infeasible::refused : Infeasible::shortened, watch);
  result.momentum = result.prediction->momentum;
  result.flow = result.prediction->flow;
}

/// Optimises the momentum of the prepared pair, from a predicted one if there is one.
void optimise_momentum(const PreparedPair& prepared, const RegistrationOptions& options,
                       const RegistrationObserver& observer, StageClock& clock, RegistrationResult& result) {
  MatchingOptions matching = options.matching;
  matching.mask = prepared.mask;
  matching.checkpointed = recomputes_steps(result.grid.shape(), options);
  clock.begin(options.predictor ? "refinement" : "geodesic");
  MultiresolutionResult matched = match_coarse_to_fine(prepared.pair, result.grid, matching, options.lbfgs,
                                                       options.levels, observer.progress, result.momentum);
  result.momentum = matched.momentum;
  result.levels = std::move(matched.levels);
  for (const LevelReport& level : result.levels) result.iterations += level.iterations;
  result.reason = result.levels.back().reason;
  const NoGrad quiet;
  result.flow = refined(shoot(Variable(result.momentum), matching.shooting), options.image_factor);
}

/// The grid of the images that are compared in the end.
Geometry image_grid(const Geometry& grid, const RegistrationOptions& options) {
  return options.levels.empty() ? grid : refined(grid, options.image_factor);
}

/// Similarity of the pair the header alone gives, for the report, on the grid before it is cropped to the
/// aligned heads.
void score_header(const Image& fixed, const Image& moving, const Image* mask,
                  const RegistrationOptions& options, StageSimilarity& ncc, StageSimilarity& ssd_of) {
  const Geometry grid = image_grid(registration_grid(fixed, options.preparation), options);
  const PreparedPair header =
      prepare_pair_on(grid, fixed, moving, mask, options.initial.value_or(kIdentity4), options.preparation);
  ncc.header = similarity_ncc(header.pair.moving, header);
  ssd_of.header = similarity_ssd(header.pair.moving, header);
}

bool has_energy_of_predictor(const RegistrationOptions& options) {
  return options.predictor && options.matching.similarity == options.predictor->model().similarity;
}

/// The grid that a network was trained on, unless a resolution was asked for.
void take_grid(const std::string& file, double spacing_mm, double head_voxels,
               PreparationOptions& preparation) {
  if (preparation.resolution_mm > 0.0) return;
  if (head_voxels <= 0.0 && spacing_mm <= 0.0) {
    fail_input(file, ": does not say on which grid it was trained: ",
               "give --resolution (the published networks: 1)");
  }
  preparation.head_voxels = head_voxels;
  preparation.resolution_mm = head_voxels > 0.0 ? 0.0 : spacing_mm;
}

}  // namespace

double default_sigma(Similarity similarity, double spacing_mm) {
  return (similarity == Similarity::lncc ? 0.2 : 0.06) * spacing_mm;
}

int default_lncc_radius(double image_spacing_mm) {
  constexpr double kWindowMm = 2.4;
  return static_cast<int>(std::clamp(std::round(kWindowMm / image_spacing_mm), 1.0, 4.0));
}

int default_image_factor(const Geometry& images) {
  constexpr double kGridMm = 2.0, kRounding = 1e-3;
  constexpr std::int64_t kFewestVoxels = 16;
  const double wanted = std::ceil(kGridMm / images.spacing_mm()[0] - kRounding);
  const auto [x, y, z] = images.extent;
  const std::int64_t most =
      std::clamp<std::int64_t>(std::min({x, y, z}) / kFewestVoxels, 1, kMostImageFactor);
  return static_cast<int>(std::clamp(wanted, 1.0, static_cast<double>(most)));
}

int default_image_factor(const Image& fixed, double spacing_mm) {
  const double wanted = std::round(spacing_mm / fixed.geometry.finest_spacing_mm());
  return static_cast<int>(std::clamp(wanted, 1.0, static_cast<double>(kMostImageFactor)));
}

void set_matching_scale(MatchingOptions& matching, double spacing_mm) {
  matching.sigma = default_sigma(matching.similarity, spacing_mm);
  matching.shooting.fluid.alpha = 0.8 / (spacing_mm * spacing_mm);
  matching.shooting.fluid.beta = matching.shooting.fluid.alpha;
}

MatchingOptions default_matching() {
  MatchingOptions options;
  options.similarity = Similarity::lncc;
  options.lncc_radius = 1;
  set_matching_scale(options, 1.0);
  options.shooting.time_steps = 2;
  return options;
}

bool recomputes_steps(const Shape& grid, const RegistrationOptions& options) {
  return matching_bytes(grid, options, false) > available_bytes(options.preparation.device) / 2;
}

std::size_t estimated_peak_bytes(const Shape& grid, const RegistrationOptions& options) {
  const std::size_t matching =
      options.levels.empty() ? 0 : matching_bytes(grid, options, recomputes_steps(grid, options));
  if (options.voxelmorph) return options.voxelmorph->peak_bytes(grid);
  return std::max(matching, options.predictor ? options.predictor->peak_bytes(grid) : 0);
}

void require_memory(const Shape& grid, const RegistrationOptions& options) {
  const Device device = options.preparation.device;
  const std::size_t needed = estimated_peak_bytes(grid, options);
  const std::size_t available = available_bytes(device);
  if (needed <= available) return;
  const double ratio = std::cbrt(static_cast<double>(needed) / static_cast<double>(available));
  fail_input("registering on ", grid[4], " x ", grid[3], " x ", grid[2], " voxels needs about ", needed >> 20,
             " MiB on ", device, ", which has ", available >> 20, " MiB: use --resolution at least ",
             std::ceil(ratio * 11.0) / 10.0, " times the present spacing");
}

std::string_view method_of(const RegistrationOptions& options) {
  if (options.voxelmorph) return "voxelmorph";
  if (!options.predictor) return "lddmm";
  return options.levels.empty() ? "quicksilver" : "quicksilver+lddmm";
}

void start_from(std::shared_ptr<QuicksilverPredictor> predictor, RegistrationOptions& options) {
  const MomentumModel& model = predictor->model();
  take_grid(predictor->files().front().path.string(), model.spacing_mm, model.head_voxels,
            options.preparation);
  if (options.levels.empty()) options.matching = model.matching();
  options.matching.shooting = model.shooting();
  options.predictor = std::move(predictor);
}

double default_sigma(const RegistrationOptions& options, double spacing_mm) {
  if (!has_energy_of_predictor(options)) return default_sigma(options.matching.similarity, spacing_mm);
  const double sigma = options.predictor->model().sigma;
  if (sigma <= 0.0 && !options.levels.empty()) {
    fail_input(options.predictor->files().front().path.string(),
               ": does not say the sigma of its momenta: give --sigma (the published networks: 0.2)");
  }
  return sigma;
}

int default_lncc_radius(const RegistrationOptions& options, double image_spacing_mm) {
  return has_energy_of_predictor(options) ? options.predictor->model().lncc_radius
                                          : default_lncc_radius(image_spacing_mm);
}

void register_by(std::shared_ptr<const VoxelmorphPredictor> network, RegistrationOptions& options) {
  const VoxelmorphDescription& description = network->description();
  take_grid(network->file().string(), description.spacing_mm, description.head_voxels, options.preparation);
  options.levels.clear();
  options.voxelmorph = std::move(network);
}

RegistrationResult register_images(const Image& fixed_as_read, const Image& moving_as_read,
                                   const Image* fixed_mask, const RegistrationOptions& options,
                                   const RegistrationObserver& observer) {
  const auto began = std::chrono::steady_clock::now();
  StageClock clock(observer, options.preparation.device);
  require_contrast(fixed_as_read);
  require_contrast(moving_as_read);
  const Image fixed = without_outliers(fixed_as_read), moving = without_outliers(moving_as_read);

  RegistrationResult result;
  clock.begin("affine");
  const Matrix4* initial = options.initial ? &*options.initial : nullptr;
  result.affine = align_affine(fixed, moving, fixed_mask, initial, options.affine);

  clock.begin("prepare");
  const Matrix4& affine = result.affine.fixed_to_moving;
  result.grid = pair_grid(fixed, moving, affine, options.preparation);
  result.image_grid = image_grid(result.grid, options);
  require_memory(result.grid.shape(), options);
  const auto prepare_on = [&](const Geometry& grid) {
    return prepare_pair_on(grid, fixed, moving, fixed_mask, affine, options.preparation);
  };
  const bool predicts = options.predictor || options.voxelmorph;
  PreparedPair prepared = prepare_on(predicts ? result.grid : result.image_grid);
  if (options.voxelmorph) predict_velocity(prepared, options, clock, result);
  if (options.predictor) predict_momentum(prepared, options, observer, clock, result);
  if (!options.levels.empty()) {
    if (predicts && options.image_factor > 1) prepared = prepare_on(result.image_grid);
    optimise_momentum(prepared, options, observer, clock, result);
  }

  clock.begin("evaluate");
  const NoGrad quiet;
  result.smallest_jacobian = smallest_jacobian(result.flow);
  const Tensor warped = warp(Variable(prepared.pair.moving), result.flow.psi, Boundary::border).value();
  result.ncc.affine = similarity_ncc(prepared.pair.moving, prepared);
  result.ncc.final = similarity_ncc(warped, prepared);
  result.ssd.affine = similarity_ssd(prepared.pair.moving, prepared);
  result.ssd.final = similarity_ssd(warped, prepared);
  score_header(fixed, moving, fixed_mask, options, result.ncc, result.ssd);
  result.stages = clock.end();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - began;
  result.seconds = elapsed.count();
  return result;
}

}  // namespace cinnabar::registration
