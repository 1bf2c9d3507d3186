#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace cinnabar::registration {

/// Red, green, blue in 0..1, as the screen shows them (sRGB values).
using Colour = std::array<float, 3>;

/// A picture in memory. Everything drawn outside it is cut off.
class Canvas {
 public:
  Canvas(std::int64_t width, std::int64_t height, const Colour& background);

  std::int64_t width() const { return width_; }
  std::int64_t height() const { return height_; }
  Colour pixel(std::int64_t x, std::int64_t y) const;
  void set(std::int64_t x, std::int64_t y, const Colour& colour);
  /// Mixes the colour in with the given opacity.
  void blend(std::int64_t x, std::int64_t y, const Colour& colour, float opacity);
  void fill(std::int64_t left, std::int64_t top, std::int64_t width, std::int64_t height,
            const Colour& colour);

  /// Capitals, digits and . , : + - = % / ( ) | < > in a 5x7 raster, each dot `scale` pixels wide; small
  /// letters are drawn as capitals. (left, top) is the corner of the first letter.
  void text(std::int64_t left, std::int64_t top, std::string_view words, const Colour& colour,
            std::int64_t scale = 2);
  static std::int64_t text_width(std::string_view words, std::int64_t scale = 2);
  static std::int64_t text_height(std::int64_t scale = 2) { return 7 * scale; }

  /// The picture as an 8-bit RGB PNG file.
  std::vector<std::byte> to_png() const;

 private:
  std::int64_t width_;
  std::int64_t height_;
  std::vector<std::uint8_t> rgb_;
};

}  // namespace cinnabar::registration
