#include "tests/torch_cases.hpp"

#include <algorithm>
#include <cctype>
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

std::vector<TorchCase> torch_cases(const std::vector<std::string>& families) {
  std::vector<TorchCase> cases;
  const auto add_file = [&cases](const std::filesystem::path& path) {
    const auto file = std::make_shared<const SafeTensorsFile>(path);
    const std::vector<std::string> names = file->names();
    const std::size_t before = cases.size();
    for (const auto& [key, text] : file->metadata()) {
      const bool has_tensors =
          std::any_of(names.begin(), names.end(),
                      [prefix = key + "."](const auto& name) { return name.rfind(prefix, 0) == 0; });
      if (!has_tensors) continue;
      const nlohmann::json options = nlohmann::json::parse(text);
      cases.push_back({path, key, options, Device::cpu(), DType::f32, file});
      cases.push_back({path, key, options, Device::cpu(), DType::f64, file});
      cases.push_back({path, key, options, Device::cuda(), DType::f32, file});
    }
    if (cases.size() == before) fail("golden", "no case in the file");
  };
  for (const std::string& family : families) {
    for (const auto& path : golden_files(family)) {
      if (path.filename().string().find(family) == std::string::npos) continue;
      try {
        add_file(path);
      } catch (const std::exception& error) {
        cases.push_back({path, error.what(), {}, Device::cpu(), DType::f32});
      }
    }
  }
  return cases;
}

std::string name_of_torch_case(const ::testing::TestParamInfo<TorchCase>& info) {
  std::ostringstream name;
  name << info.index << '_' << info.param.file.stem().string() << '_' << info.param.name << '_'
       << (info.param.device.is_cpu() ? "cpu" : "cuda") << '_' << info.param.dtype;
  std::string text = name.str();
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return text;
}

}  // namespace cinnabar::testing
