#include "registration/correction_pairs.hpp"

#include "engine/safetensors.hpp"
#include "models/quicksilver_correction.hpp"
#include "registration/output_file.hpp"

namespace cinnabar::registration {

namespace {

Batch read_pair(const TrainingPair& pair, Device device) {
  const SafeTensorsFile file(pair.volumes);
  Batch volumes;
  for (const char* name : {"moving", "target", "momentum"}) volumes[name] = file.read(name).to(device);
  return volumes;
}

}  // namespace

std::filesystem::path correction_folder(const std::filesystem::path& momenta,
                                        const std::filesystem::path& network) {
  return momenta / ("correction-" + checksum(network));
}

bool make_correction_lessons(std::vector<TrainingPair>& pairs, const std::filesystem::path& folder,
                             Quicksilver& prediction, const MomentumModel& model,
                             const CorrectionObserver& observer) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail_input(folder.string(), ": cannot make this folder: ", error.message());
  const Device device = prediction.parameters().front().device();
  std::size_t done = 0;
  for (TrainingPair& pair : pairs) {
    const std::filesystem::path lesson = folder / (pair.name + ".safetensors");
    if (!std::filesystem::exists(lesson)) {
      if (observer.keep_going && !observer.keep_going()) return false;
      try {
        save_safetensors(lesson,
                         {correction_lesson(prediction, read_pair(pair, device), model.shooting()), {}});
      } catch (const DivergedFlow& reason) {
        fail_input(pair.name, ": the predicted momentum cannot be shot (", reason.what(),
                   "): train the prediction network longer, or take the pair out of the list");
      }
    }
    pair.volumes = lesson;
    if (observer.made) observer.made(++done, pairs.size());
  }
  return true;
}

}  // namespace cinnabar::registration
