#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "layers/module.hpp"
#include "models/lddmm_matching.hpp"

namespace cinnabar {

// Reading what a network's file says of the network, a JSON object in its metadata. Whatever is damaged or
// hostile throws an InputError that names the faulty entry.

/// A value of the file for a message.
std::string shown(const nlohmann::json& value);

/// The object that a text of moderate length and depth describes.
nlohmann::json parse_description(const std::string& text);

/// Refuses anything but an object of exactly these entries.
void require_entries(const nlohmann::json& object, const char* what, std::initializer_list<const char*> keys);

/// A number, or a whole number, within bounds that are allowed themselves.
double number_between(const nlohmann::json& object, const char* key, double least, double most);
std::int64_t whole_number(const nlohmann::json& value, const char* key, std::int64_t least,
                          std::int64_t most);
bool truth_value(const nlohmann::json& object, const char* key);

/// The entries "similarity" and "lncc_radius".
struct DataTerm {
  Similarity similarity;
  int lncc_radius;
};
DataTerm data_term_in(const nlohmann::json& object);

/// The object "notes": strings for people.
std::map<std::string, std::string> notes_in(const nlohmann::json& object);

/// Writes weights and, as the metadata entry `key`, what the network is.
void save_described(const std::filesystem::path& path, const Module& network, const char* key,
                    const nlohmann::json& description);

/// Reads such a file; `make` turns the description into a network of any weights. Throws InputError for a
/// file that `command` did not write or that is damaged.
template <class Make>
auto load_described(const std::filesystem::path& path, const char* key, const char* command, Make&& make) {
  const SafeTensors content = load_safetensors(path);
  try {
    const auto description = content.metadata.find(key);
    if (description == content.metadata.end()) fail_input("is no network of ", command);
    auto network = make(nlohmann::json::parse(description->second));
    network->load_state({content.tensors, {}});
    return network;
  } catch (const nlohmann::json::exception&) {
    fail_input(path.string(), ": its description is damaged; train the network again");
  } catch (const InputError& error) {
    fail_input(path.string(), ": ", error.what());
  }
}

/// Whether all values of weights (f32, f16 or bf16) are numbers.
bool is_finite(const Tensor& tensor);

}  // namespace cinnabar
