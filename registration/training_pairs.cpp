#include "registration/training_pairs.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "autograd/gaussian_smooth.hpp"
#include "data/permutation.hpp"
#include "engine/error.hpp"
#include "engine/safetensors.hpp"
#include "registration/input_file.hpp"

namespace cinnabar::registration {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kSubjects = std::uint64_t{0x7375626A} << 32;  // streams of the seed
constexpr std::uint64_t kPairs = std::uint64_t{0x70616972} << 32;

/// A scan that a record names, or nothing.
std::string scan_in(const nlohmann::json& record, const char* role) {
  const auto found = record.find(role);
  return found != record.end() && found->is_string() ? found->get<std::string>() : std::string();
}

TrainingPair pair_of_record(const fs::path& record_file) {
  TrainingPair pair;
  pair.name = record_file.stem().string();
  pair.volumes = fs::path(record_file).replace_extension(".safetensors");
  std::ifstream file(record_file);
  const nlohmann::json record = nlohmann::json::parse(file, nullptr, false);
  if (!record.is_object()) {
    fail_input(record_file.string(),
               ": is no record of a momentum; remove it and run cinnabar momenta again");
  }
  pair.moving = scan_in(record, "moving");
  pair.fixed = scan_in(record, "fixed");
  pair.copy = record.contains("augmentation") && record["augmentation"] != 0;
  return pair;
}

/// Whether a momentum is that of a pair, or of a copy of it: NAME or NAME_a7.
bool belongs_to(const TrainingPair& momentum, const std::string& name) {
  const std::string& own = momentum.name;
  return own == name || (momentum.copy && own.starts_with(name + "_a") &&
                         own.find_first_not_of("0123456789", name.size() + 2) == std::string::npos);
}

/// The subjects of the pairs without those that all pairs share, in the order of their names.
std::vector<std::string> subjects_of(const std::vector<TrainingPair>& pairs) {
  std::map<std::string, std::size_t> counts;
  for (const TrainingPair& pair : pairs) {
    for (const std::string& subject : std::set<std::string>{pair.moving, pair.fixed}) ++counts[subject];
  }
  std::vector<std::string> subjects;
  for (const auto& [subject, count] : counts) {
    if (count < pairs.size()) subjects.push_back(subject);
  }
  return subjects;
}

template <class T>
std::vector<T> shuffled(const std::vector<T>& values, std::uint64_t seed, std::uint64_t stream) {
  std::vector<T> result(values.size());
  if (values.empty()) return result;
  const Permutation order(values.size(), seed, stream);
  for (std::size_t i = 0; i < values.size(); ++i) result[order(i)] = values[i];
  return result;
}

/// The split that sets these subjects aside. `known` are all but those that every pair shares.
TrainingSplit setting_aside(const std::vector<TrainingPair>& pairs, const std::set<std::string>& known,
                            const std::set<std::string>& aside) {
  TrainingSplit split;
  for (const TrainingPair& pair : pairs) {
    std::size_t relevant = 0, inside = 0;
    for (const std::string& subject : {pair.moving, pair.fixed}) {
      relevant += known.count(subject);
      inside += aside.count(subject);
    }
    if (inside == 0) {
      split.training.push_back(pair);
    } else if (inside == relevant && !pair.copy) {
      split.validation.push_back(pair);
    } else {
      ++split.left_out;
    }
  }
  return split;
}

std::int64_t count_shared(const TrainingSplit& split) {
  std::set<std::string> trained;
  for (const TrainingPair& pair : split.training) trained.insert({pair.moving, pair.fixed});
  return std::count_if(split.validation.begin(), split.validation.end(), [&](const TrainingPair& pair) {
    return (!pair.moving.empty() && trained.contains(pair.moving)) ||
           (!pair.fixed.empty() && trained.contains(pair.fixed));
  });
}

}  // namespace

std::vector<TrainingPair> finished_pairs(const fs::path& momenta) {
  std::vector<TrainingPair> pairs;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(momenta, error)) {
    const fs::path& path = entry.path();
    if (path.extension() != ".json" || !fs::exists(fs::path(path).replace_extension(".safetensors"))) {
      continue;
    }
    pairs.push_back(pair_of_record(path));
  }
  if (error) fail_input(momenta.string(), ": cannot read the folder of momenta: ", error.message());
  if (pairs.empty()) {
    fail_input(momenta.string(), ": there is no finished momentum; make some with cinnabar momenta");
  }
  std::sort(pairs.begin(), pairs.end(),
            [](const TrainingPair& a, const TrainingPair& b) { return a.name < b.name; });
  return pairs;
}

std::vector<TrainingPair> finished_pairs(const fs::path& momenta, const fs::path& list, bool skip_missing) {
  const std::vector<TrainingPair> finished = finished_pairs(momenta);
  std::vector<TrainingPair> pairs;
  std::vector<std::string> missing;
  const std::vector<PairEntry> entries = read_pairs(list);
  for (const PairEntry& entry : entries) {
    bool found = false;
    for (TrainingPair pair : finished) {
      if (!belongs_to(pair, entry.name)) continue;
      found = found || !pair.copy;
      pair.split = entry.split;
      pairs.push_back(std::move(pair));
    }
    if (!found) missing.push_back(entry.name);
  }
  if (!missing.empty() && (!skip_missing || pairs.empty())) {
    fail_input(momenta.string(), ": ", missing.size(), " of ", entries.size(), " pairs of ", list.string(),
               " have no finished momentum (the first is ", missing.front(),
               "): run cinnabar momenta --pairs ", list.string(), " --out ", momenta.string(),
               ", or leave them out with --skip-missing");
  }
  return pairs;
}

TrainingSplit split_as_named(const std::vector<TrainingPair>& pairs) {
  TrainingSplit split;
  for (const TrainingPair& pair : pairs) {
    if (pair.split != PairSplit::validation) {
      split.training.push_back(pair);
    } else if (pair.copy) {
      ++split.left_out;
    } else {
      split.validation.push_back(pair);
    }
  }
  split.shared = count_shared(split);
  return split;
}

TrainingSplit split_by_subjects(std::vector<TrainingPair> pairs, double share, std::uint64_t seed) {
  std::vector<TrainingPair> originals;
  std::copy_if(pairs.begin(), pairs.end(), std::back_inserter(originals),
               [](const TrainingPair& pair) { return !pair.copy; });
  if (share <= 0.0 || originals.size() < 2) return {pairs, {}, 0, 0};
  const auto wanted = static_cast<std::size_t>(
      std::max<long long>(1, std::llround(share * static_cast<double>(originals.size()))));
  const std::vector<std::string> subjects = subjects_of(pairs);
  const std::set<std::string> known(subjects.begin(), subjects.end());
  std::set<std::string> aside;
  for (const std::string& subject : shuffled(subjects, seed, kSubjects)) {
    if (known.contains("")) break;
    aside.insert(subject);
    TrainingSplit split = setting_aside(pairs, known, aside);
    if (split.training.empty()) break;
    if (split.validation.size() >= wanted) return split;
  }
  const std::vector<TrainingPair> order = shuffled(originals, seed, kPairs);
  for (std::size_t i = 0; i < std::min(wanted, order.size() - 1); ++i) {
    for (TrainingPair& pair : pairs) {
      if (belongs_to(pair, order[i].name)) pair.split = PairSplit::validation;
    }
  }
  return split_as_named(pairs);
}

TrainingSplit split_as_before(const std::vector<TrainingPair>& pairs,
                              const std::vector<std::string>& training,
                              const std::vector<std::string>& validation) {
  std::map<std::string, const TrainingPair*> by_name;
  for (const TrainingPair& pair : pairs) by_name[pair.name] = &pair;
  const auto chosen = [&](const std::vector<std::string>& names) {
    std::vector<TrainingPair> found;
    for (const std::string& name : names) {
      if (!by_name.contains(name)) {
        fail_input("the pair ", name,
                   " of the checkpoint is no longer among those with a finished momentum: ",
                   "bring it back, or begin anew with --restart");
      }
      found.push_back(*by_name[name]);
    }
    return found;
  };
  TrainingSplit split{chosen(training), chosen(validation), 0, 0};
  split.left_out = static_cast<std::int64_t>(pairs.size() - training.size() - validation.size());
  split.shared = count_shared(split);
  return split;
}

void name_validation_pairs(std::vector<TrainingPair>& pairs, const fs::path& list) {
  std::ifstream file = open_text(list, "the list of validation pairs");
  for (TrainingPair& pair : pairs) pair.split = PairSplit::training;
  for (std::string line; std::getline(file, line);) {
    line.erase(std::min(line.find('#'), line.size()));
    const std::string name = trimmed(line);
    if (name.empty()) continue;
    bool found = false;
    for (TrainingPair& pair : pairs) {
      if (!belongs_to(pair, name)) continue;
      pair.split = PairSplit::validation;
      found = true;
    }
    if (!found) fail_input(list.string(), ": there is no pair '", name, "'");
  }
}

VolumeSet training_volumes(const std::vector<TrainingPair>& pairs, double smoothing_voxels) {
  std::vector<std::filesystem::path> files;
  for (const TrainingPair& pair : pairs) files.push_back(pair.volumes);
  if (smoothing_voxels == 0.0) return VolumeSet::map(files);
  std::vector<Batch> stacks;
  for (const std::filesystem::path& file : files) {
    Batch stack = load_safetensors(file).tensors;
    Tensor& momentum = stack.at("momentum");
    momentum = gaussian_smooth(momentum, {smoothing_voxels, smoothing_voxels, smoothing_voxels});
    stacks.push_back(std::move(stack));
  }
  return VolumeSet(std::move(stacks));
}

}  // namespace cinnabar::registration
