#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/tensor.hpp"

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

/// The object "notes": strings for people.
std::map<std::string, std::string> notes_in(const nlohmann::json& object);

/// Whether all values of weights (f32, f16 or bf16) are numbers.
bool is_finite(const Tensor& tensor);

}  // namespace cinnabar
