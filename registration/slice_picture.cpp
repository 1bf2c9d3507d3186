#include "registration/slice_picture.hpp"

#include <algorithm>

#include "registration/canvas.hpp"
#include "registration/output_file.hpp"

namespace cinnabar::registration {

void write_slices(const std::filesystem::path& path, const std::vector<Tensor>& images) {
  CINNABAR_CHECK(!images.empty(), "write_slices", "needs an image");
  const Shape& shape = images.front().shape();
  CINNABAR_CHECK((shape.rank() == 4 || shape.rank() == 5) && shape[0] == 1 && shape[1] == 1, "write_slices",
                 "images must be [1, 1, H, W] or [1, 1, D, H, W], got ", shape);
  const std::int64_t height = shape[-2], width = shape[-1];
  const std::int64_t middle = shape.rank() == 5 ? shape[2] / 2 * height * width : 0;
  Canvas canvas(width * static_cast<std::int64_t>(images.size()), height, {0, 0, 0});
  std::int64_t left = 0;
  for (const Tensor& image : images) {
    require_same_shape("write_slices", images.front(), image);
    const Tensor here = image.to(Device::cpu());
    const float* greys = here.data<float>() + middle;
    for (std::int64_t p = 0; p < width * height; ++p) {
      const float grey = std::clamp(greys[p], 0.0f, 1.0f);
      canvas.set(left + p % width, height - 1 - p / width, {grey, grey, grey});
    }
    left += width;
  }
  write_bytes(path, canvas.to_png());
}

}  // namespace cinnabar::registration
