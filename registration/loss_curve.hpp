#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "models/training.hpp"

namespace cinnabar::registration {

/// The curve of a training as a table: step, epoch, training and validation loss (mean |error| per component
/// and voxel) and their ratios to predicting zero. What was not measured is left empty.
std::string loss_table(const std::vector<LossPoint>& curve);

/// The ratios over the epochs as an SVG picture: training as measured (pale) and smoothed, validation with
/// its best point marked. 1 is the loss of predicting zero.
std::string draw_loss_curve(const std::vector<LossPoint>& curve);

/// Writes table and picture, each under a temporary name that is then renamed.
void write_loss_curve(const std::filesystem::path& csv, const std::filesystem::path& svg,
                      const std::vector<LossPoint>& curve);

}  // namespace cinnabar::registration
