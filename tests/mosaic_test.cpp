#include "registration/mosaic.hpp"

#include <gtest/gtest.h>
#include <png.h>

#include <cmath>

#include "registration/canvas.hpp"
#include "registration/nifti.hpp"
#include "registration/report.hpp"
#include "registration/slice_view.hpp"
#include "registration/transform_chain.hpp"
#include "tests/grids.hpp"
#include "tests/scratch_folder.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::oblique_grid;
using cinnabar::testing::read_bytes;
using cinnabar::testing::ScratchFolder;

struct Picture {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> rgb;
};

Picture decode(const std::vector<std::byte>& png) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  EXPECT_NE(png_image_begin_read_from_memory(&image, png.data(), png.size()), 0) << image.message;
  image.format = PNG_FORMAT_RGB;
  Picture picture{image.width, image.height, std::vector<std::uint8_t>(PNG_IMAGE_SIZE(image))};
  EXPECT_NE(png_image_finish_read(&image, nullptr, picture.rgb.data(), 0, nullptr), 0) << image.message;
  return picture;
}

/// A bright ellipsoid of 30 x 40 x 20 mm with a brighter ball in its right, anterior, superior part.
Image head(const Geometry& grid) {
  Image image{Tensor::empty(grid.shape()), grid, {}};
  float* voxel = image.voxels.data<float>();
  for (std::int64_t i = 0; i < grid.voxels(); ++i) {
    const std::int64_t x = i % grid.extent[0], y = i / grid.extent[0] % grid.extent[1];
    const std::int64_t z = i / (grid.extent[0] * grid.extent[1]);
    const Point p = transform_point(grid.voxel_to_world,
                                    {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)});
    const double ellipsoid = std::hypot(p[0] / 15, p[1] / 20, p[2] / 10);
    const double ball = std::hypot(p[0] - 6, p[1] - 8, p[2] - 3) / 4;
    voxel[i] = ellipsoid > 1 ? 0.0f : (ball < 1 ? 100.0f : 50.0f);
  }
  return image;
}

Geometry centred(Geometry grid) {
  const Point centre = grid.centre();
  for (std::size_t row = 0; row < 3; ++row) grid.voxel_to_world[row * 4 + 3] -= centre[row];
  return grid;
}

TEST(Canvas, DrawsAndSurvivesPng) {
  Canvas canvas(40, 20, {0.2f, 0.4f, 0.6f});
  canvas.fill(-5, -5, 8, 8, {1, 0, 0});
  canvas.text(10, 5, "A+1", {1, 1, 1}, 1);
  canvas.blend(39, 19, {1, 1, 1}, 0.5f);
  canvas.set(100, 100, {1, 1, 1});
  const Picture picture = decode(canvas.to_png());
  ASSERT_EQ(picture.width, 40);
  ASSERT_EQ(picture.height, 20);
  EXPECT_EQ(picture.rgb[0], 255);
  EXPECT_EQ(picture.rgb[3 * 4], 51);
  EXPECT_EQ(picture.rgb[3 * (5 * 40 + 12)], 255) << "the tip of the A";
  EXPECT_EQ(picture.rgb.back(), 204);
  EXPECT_EQ(Canvas::text_width("A+1", 1), 17);
}

TEST(SliceView, PutsTheAnatomyWhereARadiologistLooksForIt) {
  const std::vector<Geometry> grids{
      centred(axis_aligned_grid({60, 60, 60}, {1, 1, 1})),
      centred(axis_aligned_grid({60, 60, 20}, {-1, 1, 3})),
      centred(oblique_grid({40, 60, 50}, {1, -1, 1.2}, {1.5708, 0, 0}, {0, 0, 0}))};
  for (const Geometry& grid : grids) {
    const Image image = head(grid);
    const std::vector<SliceView> views = three_views(image, 200);
    ASSERT_EQ(views.size(), 3u);
    EXPECT_EQ(views[0].width, views[1].width);
    EXPECT_NEAR(static_cast<double>(views[0].height) / static_cast<double>(views[0].width), 40.0 / 40, 0.1);
    EXPECT_NEAR(static_cast<double>(views[1].height) / static_cast<double>(views[1].width), 20.0 / 40, 0.1);
    EXPECT_EQ(views[1].height, views[2].height);
    for (const SliceView& view : views) {
      const Point first = transform_point(view.pixel_to_world, {0, 0, 0});
      const Point last = transform_point(view.pixel_to_world, {static_cast<double>(view.width - 1),
                                                               static_cast<double>(view.height - 1), 0});
      const std::size_t across = view.left == 'R' ? 0 : 1;
      const std::size_t up = view.name == "AXIAL" ? 1 : 2;
      EXPECT_GT(first[across], last[across]) << view.name << ": right or anterior is on the left";
      EXPECT_GT(first[up], last[up]) << view.name << ": anterior or superior is up";
    }
  }
}

TEST(SliceView, WindowsAreRobust) {
  Image image = head(centred(axis_aligned_grid({40, 50, 30}, {1, 1, 1})));
  image.voxels.data<float>()[5] = 1e6f;
  const IntensityWindow window = intensity_window(image);
  EXPECT_EQ(window.black, 0.0f);
  EXPECT_EQ(window.white, 100.0f);
  const Geometry grid = axis_aligned_grid({3, 3, 3}, {1, 1, 1});
  const IntensityWindow flat = intensity_window({Tensor::full(grid.shape(), 7.0), grid, {}});
  EXPECT_GT(flat.white, flat.black);
}

TEST(Mosaic, ShowsTheDifferenceShrinkAndTheFoldsInColour) {
  const Geometry grid = centred(axis_aligned_grid({40, 50, 15}, {1, 1, 2}));
  const Image fixed = head(grid);
  Image moving = fixed;
  moving.voxels = moving.voxels.clone();
  moving.voxels.fill(50.0);
  DisplacementField field{Tensor::zeros(grid.shape(3)), grid, {}};
  const Picture plain = decode(draw_mosaic({fixed, moving, fixed, field}));
  const auto count_magenta = [](const Picture& picture) {
    std::int64_t count = 0;
    for (std::size_t i = 0; i + 2 < picture.rgb.size(); i += 3) {
      if (picture.rgb[i] == 255 && picture.rgb[i + 1] == 38 && picture.rgb[i + 2] == 242) ++count;
    }
    return count;
  };
  EXPECT_GT(plain.width, 7 * 190);
  EXPECT_EQ(count_magenta(plain), 0);
  // Mirroring a slab folds it.
  for (std::int64_t i = 0; i < grid.voxels(); ++i) {
    const double x = static_cast<double>(i % 40) - 19.5;
    field.vectors.data<float>()[i] = static_cast<float>(std::abs(x) < 6 ? -2 * x : 0.0);
  }
  EXPECT_GT(count_magenta(decode(draw_mosaic({fixed, moving, fixed, field}))), 100);
}

TEST(Mosaic, IsDrawnForExtremeShapes) {
  for (const std::array<std::int64_t, 3>& extent :
       {std::array<std::int64_t, 3>{2, 2, 2}, {64, 2, 2}, {3, 40, 3}}) {
    const Geometry grid = centred(axis_aligned_grid(extent, {1, 1, 1}));
    const Image flat{Tensor::full(grid.shape(), 1.0), grid, {}};
    const DisplacementField none{Tensor::zeros(grid.shape(3)), grid, {}};
    EXPECT_GT(decode(draw_mosaic({flat, flat, flat, none})).height, 100);
  }
}

TEST(Report, HoldsEverythingAndEscapesText) {
  const ScratchFolder folder;
  Report report{
      "a < b & \"c\"", "sub", {std::byte{0xff}, std::byte{0x00}, std::byte{0x10}, std::byte{0x7f}}, {}, {}};
  report.tables.push_back({"Metrics", {"name", "value"}, {{"Dice", "0.83"}}});
  report.commands.push_back({"Again", "cinnabar register --fixed 'x>y'"});
  write_report(folder / "report.html", report);
  const std::string page = read_bytes(folder / "report.html");
  EXPECT_NE(page.find("<title>a &lt; b &amp; &quot;c&quot;</title>"), std::string::npos);
  EXPECT_NE(page.find("data:image/png;base64,/wAQfw=="), std::string::npos);
  EXPECT_NE(page.find("<td>0.83</td>"), std::string::npos);
  EXPECT_NE(page.find("'x&gt;y'"), std::string::npos);
  EXPECT_EQ(page.find("http"), std::string::npos) << "the page must not load anything";
  EXPECT_EQ(folder.count(), 1);
}

}  // namespace
}  // namespace cinnabar::registration
