#include "models/network_description.hpp"

#include <algorithm>
#include <cmath>

#include "engine/printable.hpp"
#include "kernels/lncc.hpp"

namespace cinnabar {

using nlohmann::json;

namespace {

constexpr std::size_t kMaxDescription = 1 << 20;  ///< characters
constexpr int kMaxDepth = 4;                      ///< of nested objects: damage could ask for deep recursion

template <class T>
bool all_finite(const Tensor& tensor) {
  const T* first = tensor.data<T>();
  return std::all_of(first, first + tensor.numel(),
                     [](T value) { return std::isfinite(static_cast<float>(value)); });
}

}  // namespace

std::string shown(const json& value) {
  if (value.is_structured()) return value.type_name();
  return printable(value.dump(-1, ' ', true, json::error_handler_t::replace));
}

void require_entries(const json& object, const char* what, std::initializer_list<const char*> keys) {
  if (!object.is_object()) fail_input("'", what, "' is not an object");
  for (const char* key : keys) {
    if (!object.contains(key)) fail_input("'", what, "' lacks '", key, "'");
  }
  for (const auto& [key, value] : object.items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      fail_input("'", what, "' has the unknown entry ", shown(key));
    }
  }
}

double number_between(const json& object, const char* key, double least, double most) {
  const json& value = object[key];
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  if (!(number >= least && number <= most)) {
    fail_input("'", key, "' is ", shown(value), ", not a number in [", least, ", ", most, "]");
  }
  return number;
}

std::int64_t whole_number(const json& value, const char* key, std::int64_t least, std::int64_t most) {
  const bool fits = value.is_number_integer() && value.get<double>() >= static_cast<double>(least) &&
                    value.get<double>() <= static_cast<double>(most);
  if (!fits) {
    fail_input("'", key, "' is ", shown(value), ", not a whole number in [", least, ", ", most, "]");
  }
  return value.get<std::int64_t>();
}

bool truth_value(const json& object, const char* key) {
  if (!object[key].is_boolean()) fail_input("'", key, "' is ", shown(object[key]), ", not true or false");
  return object[key].get<bool>();
}

json parse_description(const std::string& text) {
  if (text.size() > kMaxDescription) fail_input("the description has ", text.size(), " characters");
  const auto shallow = [](int depth, json::parse_event_t, const json&) {
    if (depth > kMaxDepth) fail_input("the description is nested too deeply");
    return true;
  };
  const json object = json::parse(text, shallow, false);
  if (object.is_discarded()) fail_input("the description is not valid JSON");
  return object;
}

DataTerm data_term_in(const json& object) {
  if (!object.contains("lncc_radius")) fail_input("'similarity' comes without 'lncc_radius'");
  if (!object["similarity"].is_string()) fail_input("'similarity' is not a string");
  return {similarity_named(object["similarity"].get<std::string>()),
          static_cast<int>(whole_number(object["lncc_radius"], "lncc_radius", 1, kLargestLnccRadius))};
}

std::map<std::string, std::string> notes_in(const json& object) {
  if (!object["notes"].is_object()) fail_input("'notes' is not an object");
  std::map<std::string, std::string> notes;
  for (const auto& [key, note] : object["notes"].items()) {
    if (!note.is_string()) fail_input("a note is not a string");
    notes[key] = note.get<std::string>();
  }
  return notes;
}

void save_described(const std::filesystem::path& path, const Module& network, const char* key,
                    const json& description) {
  SafeTensors content = network.state();
  content.metadata[key] = description.dump();
  save_safetensors(path, content);
}

bool is_finite(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case DType::f16:
      return all_finite<Half>(tensor);
    case DType::bf16:
      return all_finite<BFloat16>(tensor);
    default:
      return all_finite<float>(tensor);
  }
}

}  // namespace cinnabar
