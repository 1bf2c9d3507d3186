#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "registration/registration.hpp"

namespace cinnabar::apps {

/// What `cinnabar register` is told of its method.
struct MethodArguments {
  std::string method = "lddmm";
  std::string network, correction;  ///< files; empty: the default networks
  int corrections = 2;
  int samples = 50;
  int refine_iterations = 10;
  std::int64_t batch = 64;
  std::int64_t stride = 14;
  Conv3dPrecision precision = Conv3dPrecision::fp32;
};

void add_method_options(CLI::App& command, MethodArguments& arguments);

/// Throws InputError for an option, typed or read from a file, that the method does not know what to do with.
void require_options_of_method(const CLI::App& command, const MethodArguments& arguments);

/// Makes `options`, those of LDDMM, those of the method. Loads its networks.
void choose_method(const MethodArguments& arguments, std::uint64_t seed,
                   registration::RegistrationOptions& options);

}  // namespace cinnabar::apps
