#include "kernels/cpab_tessellation.hpp"

#include <Eigen/Dense>
#include <array>

namespace cinnabar {

namespace {

constexpr const char* kOp = "cpab_tessellation";

/// Number of fields in a tensor of one, or of several behind each other.
std::int64_t fields_of(const Tensor& tensor, const Shape& field) {
  const int lead = tensor.rank() - field.rank();
  bool fits = tensor.dtype() == DType::f64 && tensor.device().is_cpu() && (lead == 0 || lead == 1);
  for (int axis = 0; fits && axis < field.rank(); ++axis) fits = tensor.shape(lead + axis) == field[axis];
  CINNABAR_CHECK(fits, kOp, "needs f64 CPU fields of ", field, ", got ", tensor);
  return lead == 1 ? tensor.shape(0) : 1;
}

}  // namespace

CpabTessellation::CpabTessellation(const std::vector<std::int32_t>& boxes) {
  CINNABAR_CHECK(!boxes.empty() && boxes.size() <= 3, kOp, "needs 1 to 3 axes, got ", boxes.size());
  grid_.dims = static_cast<int>(boxes.size());
  std::int64_t count = 1;
  for (std::size_t a = 0; a < boxes.size(); ++a) {
    CINNABAR_CHECK(boxes[a] >= 1 && boxes[a] <= (1 << 24), kOp, boxes[a], " boxes on axis ", a);
    grid_.boxes[a] = boxes[a];
    count *= boxes[a];
    CINNABAR_CHECK(count <= (1 << 24), kOp, "more than 2^24 boxes");
  }
  grid_.dims == 1 ? build<1>() : grid_.dims == 2 ? build<2>() : build<3>();
}

template <int D>
void CpabTessellation::build() {
  const std::array<std::int32_t, 3> n{grid_.boxes[0], grid_.boxes[1], grid_.boxes[2]};
  const std::int64_t box_count = std::int64_t{n[0]} * n[1] * n[2];
  cells_ = box_count * kCpabCellsPerBox<D>;
  CINNABAR_CHECK(cells_ <= (1 << 24), kOp, cells_, " cells are more than 2^24");
  vertices_ = D == 2 ? box_count : 0;
  std::int64_t corners = 1;
  for (std::size_t a = 0; a < D; ++a) corners *= n[a] + 1;
  vertices_ += corners;

  std::vector<double> positions;
  for (std::int64_t v = 0; v < vertices_; ++v) {
    std::int64_t index = v < corners ? v : v - corners;
    for (std::size_t a = 0; a < D; ++a) {
      const std::int64_t extent = v < corners ? n[a] + 1 : n[a];
      const double shift = v < corners ? 0.0 : 0.5;
      positions.push_back((static_cast<double>(index % extent) + shift) / n[a]);
      index /= extent;
    }
  }
  positions_ = Tensor::from(positions, {vertices_, D});

  std::vector<std::int64_t> members;
  std::vector<double> box_corners;
  for (std::int64_t c = 0; c < cells_; ++c) {
    const auto box = static_cast<std::int32_t>(c / kCpabCellsPerBox<D>);
    const std::array<std::int32_t, 3> at{box % n[0], box / n[0] % n[1], box / n[0] / n[1]};
    for (int k = 0; k <= D; ++k) {
      members.push_back(cpab_vertex<D>(grid_, at.data(), (at[0] + at[1] + at[2]) & 1,
                                       static_cast<int>(c % kCpabCellsPerBox<D>), k));
    }
    for (std::size_t a = 0; a < D; ++a) box_corners.push_back(at[a]);
  }
  cell_vertices_ = Tensor::from(members, {cells_, D + 1});
  box_corners_ = Tensor::from(box_corners, {cells_, D});
}

Tensor CpabTessellation::cell_centres() const {
  const std::int64_t d = dims();
  Tensor centres = Tensor::zeros({cells_, d}, DType::f64);
  const auto* members = cell_vertices_.data<std::int64_t>();
  for (std::int64_t c = 0; c < cells_; ++c) {
    for (std::int64_t k = 0; k <= d; ++k) {
      for (std::int64_t a = 0; a < d; ++a) {
        centres.data<double>()[c * d + a] +=
            positions_.data<double>()[members[c * (d + 1) + k] * d + a] / static_cast<double>(d + 1);
      }
    }
  }
  return centres;
}

template <class T>
std::int64_t CpabTessellation::cell_of(const T* point) const {
  T s[3] = {};
  T u[3] = {};
  for (int a = 0; a < dims(); ++a) s[a] = point[a] * static_cast<T>(grid_.boxes[a]);
  if (dims() == 1) return cpab_locate<T, 1>(grid_, s, u).cell(grid_);
  if (dims() == 2) return cpab_locate<T, 2>(grid_, s, u).cell(grid_);
  return cpab_locate<T, 3>(grid_, s, u).cell(grid_);
}
template std::int64_t CpabTessellation::cell_of(const float*) const;
template std::int64_t CpabTessellation::cell_of(const double*) const;

bool CpabTessellation::on_boundary(std::int64_t vertex, int axis) const {
  const double x = positions_.data<double>()[vertex * dims() + axis];
  return x == 0.0 || x == 1.0;
}

// With n the boxes an axis and o the box's corner in boxes, u = n x - o: M = n A / n for the linear part, and
// M's last column is n (A o / n + b).
Tensor CpabTessellation::maps_from_matrices(const Tensor& matrices) const {
  const std::int64_t d = dims();
  const std::int64_t rows = fields_of(matrices, {cells_, d, d + 1}) * cells_ * d;
  Tensor maps = Tensor::empty_like(matrices);
  for (std::int64_t row = 0; row < rows; ++row) {
    const double* a = matrices.data<double>() + row * (d + 1);
    double* m = maps.data<double>() + row * (d + 1);
    const double* corner = box_corners_.data<double>() + row / d % cells_ * d;
    const double n_row = grid_.boxes[row % d];
    m[d] = n_row * a[d];
    for (std::int64_t k = 0; k < d; ++k) {
      m[k] = n_row * a[k] / grid_.boxes[k];
      m[d] += m[k] * corner[k];
    }
  }
  return maps;
}

Tensor CpabTessellation::matrices_from_maps(const Tensor& maps) const {
  const std::int64_t d = dims();
  const std::int64_t rows = fields_of(maps, {cells_, d, d + 1}) * cells_ * d;
  Tensor matrices = Tensor::empty_like(maps);
  for (std::int64_t row = 0; row < rows; ++row) {
    const double* m = maps.data<double>() + row * (d + 1);
    double* a = matrices.data<double>() + row * (d + 1);
    const double* corner = box_corners_.data<double>() + row / d % cells_ * d;
    const double n_row = grid_.boxes[row % d];
    a[d] = m[d];
    for (std::int64_t k = 0; k < d; ++k) {
      a[k] = m[k] * grid_.boxes[k] / n_row;
      a[d] -= m[k] * corner[k];
    }
    a[d] /= n_row;
  }
  return matrices;
}

Tensor CpabTessellation::maps_from_matrices_backward(const Tensor& grad_maps) const {
  const std::int64_t d = dims();
  const std::int64_t rows = fields_of(grad_maps, {cells_, d, d + 1}) * cells_ * d;
  Tensor grad = Tensor::empty_like(grad_maps);
  for (std::int64_t row = 0; row < rows; ++row) {
    const double* m = grad_maps.data<double>() + row * (d + 1);
    double* a = grad.data<double>() + row * (d + 1);
    const double* corner = box_corners_.data<double>() + row / d % cells_ * d;
    const double n_row = grid_.boxes[row % d];
    a[d] = n_row * m[d];
    for (std::int64_t k = 0; k < d; ++k) a[k] = n_row * (m[k] + corner[k] * m[d]) / grid_.boxes[k];
  }
  return grad;
}

std::vector<double> CpabTessellation::node_weights(std::int64_t cell) const {
  const std::int64_t d = dims();
  Eigen::MatrixXd corners(d + 1, d + 1);
  for (std::int64_t k = 0; k <= d; ++k) {
    const std::int64_t vertex = cell_vertices_.data<std::int64_t>()[cell * (d + 1) + k];
    for (std::int64_t a = 0; a < d; ++a) corners(a, k) = positions_.data<double>()[vertex * d + a];
    corners(d, k) = 1.0;
  }
  const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> weights = corners.inverse();
  return {weights.data(), weights.data() + weights.size()};
}

Tensor CpabTessellation::matrices_from_nodes(const Tensor& nodes) const {
  const std::int64_t d = dims();
  const std::int64_t fields = fields_of(nodes, {vertices_, d});
  Tensor matrices = Tensor::zeros({fields, cells_, d, d + 1}, DType::f64);
  for (std::int64_t c = 0; c < cells_; ++c) {
    const std::vector<double> weights = node_weights(c);
    for (std::int64_t field = 0; field < fields; ++field) {
      double* a = matrices.data<double>() + (field * cells_ + c) * d * (d + 1);
      for (std::int64_t k = 0; k <= d; ++k) {
        const std::int64_t vertex = cell_vertices_.data<std::int64_t>()[c * (d + 1) + k];
        const double* velocity = nodes.data<double>() + (field * vertices_ + vertex) * d;
        for (std::int64_t entry = 0; entry < d * (d + 1); ++entry) {
          a[entry] +=
              velocity[entry / (d + 1)] * weights[static_cast<std::size_t>(k * (d + 1) + entry % (d + 1))];
        }
      }
    }
  }
  return matrices;
}

Tensor CpabTessellation::matrices_from_nodes_backward(const Tensor& grad_matrices) const {
  const std::int64_t d = dims();
  const std::int64_t fields = fields_of(grad_matrices, {cells_, d, d + 1});
  Tensor grad = Tensor::zeros({fields, vertices_, d}, DType::f64);
  for (std::int64_t c = 0; c < cells_; ++c) {
    const std::vector<double> weights = node_weights(c);
    for (std::int64_t field = 0; field < fields; ++field) {
      const double* a = grad_matrices.data<double>() + (field * cells_ + c) * d * (d + 1);
      for (std::int64_t k = 0; k <= d; ++k) {
        const std::int64_t vertex = cell_vertices_.data<std::int64_t>()[c * (d + 1) + k];
        double* target = grad.data<double>() + (field * vertices_ + vertex) * d;
        for (std::int64_t entry = 0; entry < d * (d + 1); ++entry) {
          target[entry / (d + 1)] +=
              a[entry] * weights[static_cast<std::size_t>(k * (d + 1) + entry % (d + 1))];
        }
      }
    }
  }
  return grad;
}

}  // namespace cinnabar
