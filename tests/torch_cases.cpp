#include "tests/torch_cases.hpp"

#include <algorithm>
#include <sstream>

#include "tests/golden_cases.hpp"

namespace cinnabar::testing {

std::map<std::string, Tensor> TorchCase::read() const {
  const std::string prefix = name + ".";
  std::map<std::string, Tensor> tensors;
  for (const std::string& full : content->names()) {
    if (full.rfind(prefix, 0) != 0) continue;
    const Tensor stored = content->read(full);
    tensors[full.substr(prefix.size())] =
        (is_floating(stored.dtype()) ? stored.to(dtype) : stored).to(device);
  }
  return tensors;
}

double TorchCase::tolerance(const std::string& tensor) const {
  if (dtype == DType::f64) return 1e-7;
  const auto stated = options.value("torch_f32_max_err_over_max_abs", nlohmann::json::object());
  return std::max(10 * stated.value(tensor, 0.0), 2e-6);
}

void PrintTo(const TorchCase& golden, std::ostream* out) {
  *out << golden.file.string() << ": " << golden.name << ' ' << golden.options;
}

namespace {

/// Whether a file's name contains one of the families or its metadata entry `family` begins with one.
bool belongs_to(const std::filesystem::path& path, const std::vector<std::string>& families) {
  const std::string name = path.filename().string();
  const auto metadata = golden_metadata(path).value_or(std::map<std::string, std::string>{});
  const auto stated = metadata.find("family");
  return std::any_of(families.begin(), families.end(), [&](const std::string& family) {
    return name.find(family) != std::string::npos ||
           (stated != metadata.end() && stated->second.starts_with(family));
  });
}

/// Appends the cases of a file; one whose options cannot be read comes without them.
void add_file(const std::filesystem::path& path, std::vector<TorchCase>& cases) {
  const auto file = std::make_shared<const SafeTensorsFile>(path);
  const std::vector<std::string> names = file->names();
  const std::size_t before = cases.size();
  for (const auto& [key, text] : file->metadata()) {
    const bool has_tensors = std::any_of(names.begin(), names.end(), [prefix = key + "."](const auto& name) {
      return name.rfind(prefix, 0) == 0;
    });
    if (!has_tensors) continue;
    nlohmann::json options;
    try {
      options = nlohmann::json::parse(text);
    } catch (const nlohmann::json::exception& error) {
      cases.push_back({path, key + ": " + error.what(), {}, Device::cpu(), DType::f32});
      continue;
    }
    cases.push_back({path, key, options, Device::cpu(), DType::f32, file});
    cases.push_back({path, key, options, Device::cpu(), DType::f64, file});
    cases.push_back({path, key, options, Device::cuda(), DType::f32, file});
  }
  if (cases.size() == before) fail("golden", "no case in the file");
}

}  // namespace

std::vector<TorchCase> torch_cases(const std::vector<std::string>& families) {
  std::vector<TorchCase> cases;
  for (const auto& path : golden_files("")) {
    if (!belongs_to(path, families)) continue;
    try {
      add_file(path, cases);
    } catch (const std::exception& error) {
      cases.push_back({path, error.what(), {}, Device::cpu(), DType::f32});
    }
  }
  return cases;
}

std::string name_of_torch_case(const ::testing::TestParamInfo<TorchCase>& info) {
  std::ostringstream name;
  name << info.index << '_' << info.param.file.stem().string() << '_' << info.param.name << '_'
       << (info.param.device.is_cpu() ? "cpu" : "cuda") << '_' << info.param.dtype;
  return as_test_name(name.str());
}

}  // namespace cinnabar::testing
