#include "registration/canvas.hpp"

#include <png.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "engine/error.hpp"

namespace cinnabar::registration {

namespace {

/// Seven rows of five dots, top first, most significant bit left.
struct Glyph {
  char letter;
  std::array<std::uint8_t, 7> rows;
};

constexpr Glyph kGlyphs[] = {
    {'A', {0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001}},
    {'B', {0b11110, 0b10001, 0b10001, 0b11110, 0b10001, 0b10001, 0b11110}},
    {'C', {0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110}},
    {'D', {0b11110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b11110}},
    {'E', {0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111}},
    {'F', {0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b10000}},
    {'G', {0b01110, 0b10001, 0b10000, 0b10111, 0b10001, 0b10001, 0b01111}},
    {'H', {0b10001, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001}},
    {'I', {0b01110, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110}},
    {'J', {0b00111, 0b00010, 0b00010, 0b00010, 0b00010, 0b10010, 0b01100}},
    {'K', {0b10001, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010, 0b10001}},
    {'L', {0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111}},
    {'M', {0b10001, 0b11011, 0b10101, 0b10101, 0b10001, 0b10001, 0b10001}},
    {'N', {0b10001, 0b11001, 0b10101, 0b10101, 0b10011, 0b10001, 0b10001}},
    {'O', {0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110}},
    {'P', {0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000}},
    {'Q', {0b01110, 0b10001, 0b10001, 0b10001, 0b10101, 0b10010, 0b01101}},
    {'R', {0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001}},
    {'S', {0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110}},
    {'T', {0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100}},
    {'U', {0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110}},
    {'V', {0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100}},
    {'W', {0b10001, 0b10001, 0b10001, 0b10101, 0b10101, 0b11011, 0b10001}},
    {'X', {0b10001, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001, 0b10001}},
    {'Y', {0b10001, 0b10001, 0b01010, 0b00100, 0b00100, 0b00100, 0b00100}},
    {'Z', {0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b11111}},
    {'0', {0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110}},
    {'1', {0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110}},
    {'2', {0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111}},
    {'3', {0b11110, 0b00001, 0b00001, 0b01110, 0b00001, 0b00001, 0b11110}},
    {'4', {0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010}},
    {'5', {0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110}},
    {'6', {0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110}},
    {'7', {0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000}},
    {'8', {0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110}},
    {'9', {0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100}},
    {'.', {0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b01100}},
    {',', {0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b00100, 0b01000}},
    {':', {0b00000, 0b01100, 0b01100, 0b00000, 0b01100, 0b01100, 0b00000}},
    {'+', {0b00000, 0b00100, 0b00100, 0b11111, 0b00100, 0b00100, 0b00000}},
    {'-', {0b00000, 0b00000, 0b00000, 0b11111, 0b00000, 0b00000, 0b00000}},
    {'=', {0b00000, 0b00000, 0b11111, 0b00000, 0b11111, 0b00000, 0b00000}},
    {'%', {0b11001, 0b11010, 0b00010, 0b00100, 0b01000, 0b01011, 0b10011}},
    {'/', {0b00001, 0b00010, 0b00010, 0b00100, 0b01000, 0b01000, 0b10000}},
    {'(', {0b00010, 0b00100, 0b01000, 0b01000, 0b01000, 0b00100, 0b00010}},
    {')', {0b01000, 0b00100, 0b00010, 0b00010, 0b00010, 0b00100, 0b01000}},
    {'|', {0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100}},
    {'<', {0b00010, 0b00100, 0b01000, 0b10000, 0b01000, 0b00100, 0b00010}},
    {'>', {0b01000, 0b00100, 0b00010, 0b00001, 0b00010, 0b00100, 0b01000}},
};

const Glyph* find_glyph(char letter) {
  const char capital = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  const auto* found = std::find_if(std::begin(kGlyphs), std::end(kGlyphs),
                                   [capital](const Glyph& glyph) { return glyph.letter == capital; });
  return found == std::end(kGlyphs) ? nullptr : found;
}

std::uint8_t to_byte(float value) {
  return static_cast<std::uint8_t>(std::lround(255.0f * std::clamp(value, 0.0f, 1.0f)));
}

}  // namespace

Canvas::Canvas(std::int64_t width, std::int64_t height, const Colour& background)
    : width_(width), height_(height) {
  CINNABAR_CHECK(width > 0 && height > 0 && width < 32768 && height < 32768, "canvas", width, " x ", height,
                 " pixels");
  rgb_.resize(static_cast<std::size_t>(3 * width * height));
  fill(0, 0, width, height, background);
}

Colour Canvas::pixel(std::int64_t x, std::int64_t y) const {
  if (x < 0 || y < 0 || x >= width_ || y >= height_) return {0, 0, 0};
  const std::uint8_t* at = &rgb_[static_cast<std::size_t>(3 * (y * width_ + x))];
  return {static_cast<float>(at[0]) / 255.0f, static_cast<float>(at[1]) / 255.0f,
          static_cast<float>(at[2]) / 255.0f};
}

void Canvas::set(std::int64_t x, std::int64_t y, const Colour& colour) {
  if (x < 0 || y < 0 || x >= width_ || y >= height_) return;
  std::uint8_t* at = &rgb_[static_cast<std::size_t>(3 * (y * width_ + x))];
  for (std::size_t c = 0; c < 3; ++c) at[c] = to_byte(colour[c]);
}

void Canvas::blend(std::int64_t x, std::int64_t y, const Colour& colour, float opacity) {
  Colour mixed = pixel(x, y);
  for (std::size_t c = 0; c < 3; ++c) mixed[c] += opacity * (colour[c] - mixed[c]);
  set(x, y, mixed);
}

void Canvas::fill(std::int64_t left, std::int64_t top, std::int64_t width, std::int64_t height,
                  const Colour& colour) {
  for (std::int64_t y = top; y < top + height; ++y) {
    for (std::int64_t x = left; x < left + width; ++x) set(x, y, colour);
  }
}

void Canvas::text(std::int64_t left, std::int64_t top, std::string_view words, const Colour& colour,
                  std::int64_t scale) {
  for (const char letter : words) {
    if (const Glyph* glyph = find_glyph(letter)) {
      for (std::int64_t dot = 0; dot < 35; ++dot) {
        if ((glyph->rows[static_cast<std::size_t>(dot / 5)] >> (4 - dot % 5) & 1) == 0) continue;
        fill(left + dot % 5 * scale, top + dot / 5 * scale, scale, scale, colour);
      }
    }
    left += 6 * scale;
  }
}

std::int64_t Canvas::text_width(std::string_view words, std::int64_t scale) {
  return words.empty() ? 0 : (6 * static_cast<std::int64_t>(words.size()) - 1) * scale;
}

std::vector<std::byte> Canvas::to_png() const {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(width_);
  image.height = static_cast<png_uint_32>(height_);
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = 0;
  CINNABAR_CHECK(png_image_write_get_memory_size(image, size, 0, rgb_.data(), 0, nullptr) != 0, "png",
                 image.message);
  std::vector<std::byte> bytes(size);
  CINNABAR_CHECK(png_image_write_to_memory(&image, bytes.data(), &size, 0, rgb_.data(), 0, nullptr) != 0,
                 "png", image.message);
  bytes.resize(size);
  return bytes;
}

}  // namespace cinnabar::registration
