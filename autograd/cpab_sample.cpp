#include "autograd/cpab_sample.hpp"

#include "kernels/cpab_sample.hpp"

namespace cinnabar {

Variable cpab_sample(const Variable& image, const Variable& theta, const CpabSpace& space,
                     const GridSampleOptions& options, const CpabOptions& flow) {
  const Variable maps = space.maps(theta);
  const Tensor voxels = image.value();
  const Tensor cells = maps.value();
  const CpabGrid grid = space.grid();
  Tensor output = Tensor::empty_like(voxels);
  cpab_sample_on(cells.device()).forward(voxels, cells, grid, options, flow, output);
  const bool wants_image = image.requires_grad();
  const bool wants_maps = maps.requires_grad();
  return record_one("cpab_sample", output, {image, maps}, [=](const Tensor& grad_output) {
    std::vector<Tensor> grads{wants_image ? Tensor::empty_like(voxels) : Tensor(),
                              wants_maps ? Tensor::empty_like(cells) : Tensor()};
    cpab_sample_on(cells.device())
        .backward(grad_output, voxels, cells, grid, options, flow, grads[0], grads[1]);
    return grads;
  });
}

}  // namespace cinnabar
