#include "models/training.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace cinnabar {

namespace {

constexpr const char* kOp = "training";
constexpr std::int64_t kPointsPerValidation = 20;
constexpr std::size_t kPendingBatches = 16;  ///< losses read back at once, so that a GPU is not waited for
constexpr std::int64_t kPointNumbers = 6;
constexpr std::size_t kProgressNumbers = 6;

void add_part(SafeTensors& whole, const std::string& prefix, const SafeTensors& part) {
  for (const auto& [name, tensor] : part.tensors) whole.tensors[prefix + name] = tensor;
  for (const auto& [name, text] : part.metadata) whole.metadata[prefix + name] = text;
}

SafeTensors part_of(const SafeTensors& whole, const std::string& prefix) {
  SafeTensors part;
  for (const auto& [name, tensor] : whole.tensors) {
    if (name.starts_with(prefix)) part.tensors[name.substr(prefix.size())] = tensor;
  }
  for (const auto& [name, text] : whole.metadata) {
    if (name.starts_with(prefix)) part.metadata[name.substr(prefix.size())] = text;
  }
  return part;
}

/// f64 numbers of a state, as many as `rows` times `columns` (rows < 0: any number of rows).
std::vector<double> numbers_of(const SafeTensors& state, const std::string& name, std::int64_t rows,
                               std::int64_t columns) {
  const auto found = state.tensors.find(name);
  if (found == state.tensors.end()) fail_input("the state of the training has no ", name);
  const Tensor& table = found->second;
  if (table.dtype() != DType::f64 || table.rank() != 2 || table.shape(1) != columns ||
      (rows >= 0 && table.shape(0) != rows)) {
    fail_input("the training's ", name, " is ", table);
  }
  return table.to_vector<double>();
}

void append(std::vector<double>& numbers, const LossPoint& point) {
  numbers.insert(numbers.end(), {static_cast<double>(point.step), point.epoch, point.training.mean,
                                 point.training.ratio, point.validation.mean, point.validation.ratio});
}

LossPoint point_from(const double* numbers) {
  return {
      static_cast<std::int64_t>(numbers[0]), numbers[1], {numbers[2], numbers[3]}, {numbers[4], numbers[5]}};
}

Tensor table(const std::vector<double>& numbers, std::int64_t columns) {
  return Tensor::from(numbers, {static_cast<std::int64_t>(numbers.size()) / columns, columns});
}

AdamOptions adam_options(double learning_rate) {
  AdamOptions options;
  options.learning_rate = learning_rate;
  return options;
}

}  // namespace

TrainingLoss Training::LossSums::result() const {
  return {loss / numbers, loss / zero};
}

void Training::prepare(std::int64_t places, std::int64_t batch_size, bool validates, double loss_scale) {
  CINNABAR_CHECK(plan_.epochs > 0.0 && plan_.epochs < 1e9, kOp, "cannot train ", plan_.epochs, " epochs");
  CINNABAR_CHECK(places >= 1 && batch_size >= 1, kOp, "cannot draw batches of ", batch_size, " from ",
                 places);
  places_ = places;
  batch_size_ = batch_size;
  validates_ = validates;
  const double draws = plan_.epochs * static_cast<double>(places);
  total_steps_ = static_cast<std::int64_t>(std::ceil(draws / static_cast<double>(batch_size)));
  const std::int64_t batches_per_epoch = (places + batch_size - 1) / batch_size;
  validation_steps_ = plan_.validation_steps > 0 ? plan_.validation_steps : batches_per_epoch;
  optimizer_.emplace(network_.named_parameters(), adam_options(plan_.learning_rate));
  if (loss_scale > 0.0) scaler_.emplace(LossScaleOptions{loss_scale});
  if (plan_.moving_average > 0.0) average_.emplace(network_.named_parameters(), plan_.moving_average);
  if (plan_.schedule == RateSchedule::cosine) rate_ = cosine_schedule(total_steps_);
}

double Training::epoch_of(std::int64_t step) const {
  return static_cast<double>(step * batch_size_) / static_cast<double>(places_);
}

/// Changes the weights by the gradients of a loss. False where they overflowed and nothing was changed.
bool Training::step_down(const Variable& loss) {
  if (scaler_) {
    scaler_->scaled(loss).backward();
    return scaler_->step(*optimizer_);
  }
  loss.backward();
  optimizer_->step();
  return true;
}

void Training::advance() {
  network_.train();
  if (rate_) optimizer_->set_rate_factor(rate_(step_));
  optimizer_->clear_gradients();
  const BatchLoss batch = batch_loss(step_);
  if (step_down(batch.loss) && average_) average_->update();
  ++step_;
  pending_.push_back({step_, batch.loss.value(), batch.zero, batch.numbers});
  if (is_point(step_)) {
    LossPoint point;
    point.step = step_;
    point.epoch = epoch_of(step_);
    point.training = running_loss();
    curve_.push_back(point);
    sums_ = {};
  } else if (pending_.size() >= kPendingBatches) {
    collect_pending();
  }
}

bool Training::is_point(std::int64_t step) const {
  const std::int64_t every = std::max<std::int64_t>(1, validation_steps_ / kPointsPerValidation);
  return step % every == 0 || step % validation_steps_ == 0 || step == total_steps_;
}

void Training::collect_pending() {
  for (const Pending& batch : pending_) {
    const double loss = batch.loss.item();
    if (!std::isfinite(loss)) {
      fail_input("the training diverged: the loss of batch ", batch.step, " is ", loss,
                 "; lower the learning rate", scaler_ ? ", or take another precision than fp16" : "");
    }
    sums_.loss += loss;
    sums_.zero += batch.zero.item();
    sums_.numbers += batch.numbers;
  }
  pending_.clear();
}

TrainingLoss Training::running_loss() {
  collect_pending();
  return sums_.result();
}

bool Training::validation_due() const {
  return validates_ && step_ > 0 && step_ != validated_step_ &&
         (step_ % validation_steps_ == 0 || step_ == total_steps_);
}

bool Training::validate(const std::function<bool()>& keep_going) {
  CINNABAR_CHECK(validation_due(), kOp, "nothing to validate after ", step_, " batches");
  if (average_) average_->swap();
  network_.eval();
  const std::optional<LossSums> sums = measure(keep_going);
  if (average_) average_->swap();
  if (!sums) return false;
  validated_step_ = step_;
  LossPoint& point = curve_.back();
  point.validation = sums->result();
  if (best_.tensors.empty() || point.validation.mean < best_point_.validation.mean) {
    best_ = average_ ? average_->state() : network_.state();
    best_point_ = point;
    stale_ = 0;
  } else {
    ++stale_;
  }
  return true;
}

SafeTensors Training::best_weights() const {
  if (!best_.tensors.empty()) return best_;
  return average_ ? average_->state() : network_.state();
}

SafeTensors Training::state() {
  collect_pending();
  SafeTensors state;
  add_part(state, "network.", network_.state());
  add_part(state, "optimizer.", optimizer_->state());
  add_part(state, "random.", network_.random_state());
  if (scaler_) add_part(state, "scaler.", scaler_->state());
  if (average_) add_part(state, "average.", average_->state());
  add_part(state, "best.", best_);
  state.tensors["progress"] = table({static_cast<double>(step_), static_cast<double>(validated_step_),
                                     static_cast<double>(stale_), sums_.loss, sums_.zero, sums_.numbers},
                                    kProgressNumbers);
  std::vector<double> points;
  append(points, best_point_);
  for (const LossPoint& point : curve_) append(points, point);
  state.tensors["curve"] = table(points, kPointNumbers);
  return state;
}

void Training::load_state(const SafeTensors& state) {
  const std::vector<double> progress = numbers_of(state, "progress", 1, kProgressNumbers);
  const std::vector<double> points = numbers_of(state, "curve", -1, kPointNumbers);
  if (points.empty() || !(progress[0] >= 0.0)) fail_input("the state of the training is damaged");
  network_.load_state(part_of(state, "network."));
  optimizer_->load_state(part_of(state, "optimizer."));
  network_.load_random_state(part_of(state, "random."));
  if (scaler_) scaler_->load_state(part_of(state, "scaler."));
  if (average_) average_->load_state(part_of(state, "average."));
  best_ = part_of(state, "best.");
  best_point_ = point_from(points.data());
  curve_.clear();
  for (std::size_t i = kPointNumbers; i < points.size(); i += kPointNumbers) {
    curve_.push_back(point_from(points.data() + i));
  }
  step_ = static_cast<std::int64_t>(progress[0]);
  validated_step_ = static_cast<std::int64_t>(progress[1]);
  stale_ = static_cast<std::int64_t>(progress[2]);
  sums_ = {progress[3], progress[4], progress[5]};
  pending_.clear();
  seek(step_);
}

}  // namespace cinnabar
