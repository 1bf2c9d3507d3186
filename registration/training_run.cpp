#include "registration/training_run.hpp"

#include <chrono>
#include <sstream>

#include "registration/loss_curve.hpp"

namespace cinnabar::registration {

namespace {

using Clock = std::chrono::steady_clock;

const std::string kOption = "option ";

/// What the checkpoints of a kind of training begin with.
std::string format_of(const std::string& kind) {
  return detail::concat("cinnabar ", kind, " training 1");
}

double minutes_since(Clock::time_point start) {
  return std::chrono::duration<double, std::ratio<60>>(Clock::now() - start).count();
}

std::string lines_of(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += detail::concat(name, "\n");
  return text;
}

std::vector<std::string> names_in(const std::string& text) {
  std::vector<std::string> names;
  std::istringstream lines(text);
  for (std::string name; std::getline(lines, name);) names.push_back(name);
  return names;
}

/// What a killed process left of a file that it was writing (engine/safetensors.hpp, output_file.hpp).
void remove_leftovers(const std::filesystem::path& file) {
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
  const std::string start = file.filename().string() + ".", hidden = "." + start;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const bool leftover = (name.starts_with(start) && name.ends_with(".tmp")) ||
                          (name.starts_with(hidden) && name.ends_with(".partial"));
    if (leftover) std::filesystem::remove(entry.path(), ignored);
  }
}

void write_checkpoint(Training& training, const TrainingRun& run) {
  SafeTensors content = training.state();
  content.metadata["format"] = format_of(run.kind);
  content.metadata["training pairs"] = lines_of(run.settings.training);
  content.metadata["validation pairs"] = lines_of(run.settings.validation);
  for (const auto& [name, value] : run.settings.options) content.metadata[kOption + name] = value;
  save_safetensors(run.files.checkpoint, content);
}

void write_network(const Training& training, const TrainingRun& run) {
  const bool validated = !run.settings.validation.empty();
  const std::int64_t step = validated ? training.best().step : training.step();
  std::map<std::string, std::string> notes{
      {"training pairs", std::to_string(run.settings.training.size())},
      {"validation pairs", std::to_string(run.settings.validation.size())},
      {"steps", std::to_string(step)},
      {"epochs", detail::concat(training.epoch_of(step))}};
  if (validated) {
    notes["validation ratio"] = detail::concat(training.best().validation.ratio);
    notes["validation loss"] = detail::concat(training.best().validation.mean);
  }
  run.write_network(training.best_weights(), notes);
}

void write_results(const Training& training, const TrainingRun& run) {
  if (training.best().step == training.step() || run.settings.validation.empty()) {
    write_network(training, run);
  }
  write_loss_curve(run.files.table, run.files.picture, training.curve());
}

}  // namespace

TrainingFiles::TrainingFiles(const std::filesystem::path& path) : network(path) {
  const std::filesystem::path stem = path.parent_path() / path.stem();
  checkpoint = stem.string() + ".checkpoint.safetensors";
  table = stem.string() + "_loss.csv";
  picture = stem.string() + "_loss.svg";
  prepared = stem.string() + "_pairs";
}

std::optional<TrainingCheckpoint> read_checkpoint(const std::filesystem::path& path,
                                                  const std::string& kind) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  TrainingCheckpoint checkpoint;
  try {
    checkpoint.state = load_safetensors(path);
  } catch (const InputError& error) {
    fail_input(error.what(), "; --restart begins anew");
  }
  const auto text = [&](const char* key) {
    const auto found = checkpoint.state.metadata.find(key);
    return found == checkpoint.state.metadata.end() ? std::string() : found->second;
  };
  if (text("format") != format_of(kind)) {
    fail_input(path.string(), ": is no checkpoint of such a training of this version; --restart begins anew");
  }
  checkpoint.settings.training = names_in(text("training pairs"));
  checkpoint.settings.validation = names_in(text("validation pairs"));
  for (const auto& [key, value] : checkpoint.state.metadata) {
    if (key.starts_with(kOption)) checkpoint.settings.options[key.substr(kOption.size())] = value;
  }
  return checkpoint;
}

void require_same_options(const TrainingCheckpoint& checkpoint,
                          const std::map<std::string, std::string>& options,
                          const std::filesystem::path& path) {
  const auto& before = checkpoint.settings.options;
  const bool constant = options.contains("--schedule") && options.at("--schedule") == "constant";
  for (const auto& [name, value] : options) {
    const auto found = before.find(name);
    const std::string then = found == before.end() ? "" : found->second;
    if (then == value || (name == "--epochs" && constant)) continue;
    fail_input(name, " is ", value.empty() ? "not given" : value, " but was ",
               then.empty() ? "not given" : then, " in ", path.string(),
               ": give it as it was to go on, or --restart to begin anew");
  }
}

void resume(Training& training, const TrainingCheckpoint& checkpoint, const std::filesystem::path& path) {
  try {
    training.load_state(checkpoint.state);
  } catch (const InputError& error) {
    fail_input(path.string(), ": ", error.what(), "; --restart begins anew");
  }
}

TrainingEnd run_training(Training& training, const TrainingRun& run, const TrainingObserver& observer) {
  const TrainingFiles& files = run.files;
  for (const auto& file : {files.network, files.checkpoint, files.table, files.picture}) {
    remove_leftovers(file);
  }
  const Clock::time_point began = Clock::now();
  Clock::time_point saved = began;
  TrainingEnd stopped = TrainingEnd::finished;
  const auto goes_on = [&] {
    if (observer.keep_going && !observer.keep_going()) {
      stopped = TrainingEnd::interrupted;
    } else if (run.max_minutes > 0.0 && minutes_since(began) >= run.max_minutes) {
      stopped = TrainingEnd::out_of_time;
    }
    return stopped == TrainingEnd::finished;
  };
  while (!training.finished() && goes_on()) {
    if (!training.validation_due()) {
      training.advance();
      if (observer.advanced) observer.advanced();
    } else if (training.validate(goes_on)) {
      write_results(training, run);
      if (observer.validated) observer.validated(training.curve().back());
    }
    if (minutes_since(saved) >= run.checkpoint_minutes) {
      write_checkpoint(training, run);
      saved = Clock::now();
    }
  }
  write_checkpoint(training, run);
  if (stopped != TrainingEnd::finished) return stopped;
  write_network(training, run);
  write_loss_curve(run.files.table, run.files.picture, training.curve());
  return training.out_of_patience() ? TrainingEnd::out_of_patience : TrainingEnd::finished;
}

}  // namespace cinnabar::registration
