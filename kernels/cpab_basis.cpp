#include "kernels/cpab_basis.hpp"

#include <Eigen/Dense>
#include <Eigen/Sparse>
#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace cinnabar {

namespace {

constexpr const char* kOp = "cpab_basis";
using Matrix = Eigen::MatrixXd;
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Sparse = Eigen::SparseMatrix<double>;

/// Linear equations on vec(A), collected one entry at a time.
class Equations {
 public:
  explicit Equations(const CpabTessellation& tessellation)
      : d_(tessellation.dims()), tessellation_(tessellation) {}

  /// The next row: sign * A_c[r] . [x; w] added to it.
  void add(std::int64_t cell, int r, const double* x, double w, double sign) {
    for (int k = 0; k <= d_; ++k) {
      const double value = sign * (k < d_ ? x[k] : w);
      if (value != 0.0) entries_.emplace_back(rows_, (cell * d_ + r) * (d_ + 1) + k, value);
    }
  }
  void end_row() { ++rows_; }
  /// Both cells' matrices agree on a point (w = 1) or direction (w = 0).
  void agree(std::int64_t a, std::int64_t b, const double* x, double w) {
    for (int r = 0; r < d_; ++r) {
      add(a, r, x, w, 1.0);
      add(b, r, x, w, -1.0);
      end_row();
    }
  }
  Sparse matrix() const {
    Sparse result(rows_, tessellation_.cells() * d_ * (d_ + 1));
    result.setFromTriplets(entries_.begin(), entries_.end());
    return result;
  }

 private:
  int d_;
  const CpabTessellation& tessellation_;
  std::int64_t rows_ = 0;
  std::vector<Eigen::Triplet<double>> entries_;
};

const double* position(const CpabTessellation& tessellation, std::int64_t vertex) {
  return tessellation.vertex_positions().data<double>() + vertex * tessellation.dims();
}

/// Cells by facet: the sorted vertices of a facet, and the one or two cells it belongs to.
using Facets = std::map<std::vector<std::int64_t>, std::vector<std::int64_t>>;

Facets facets_of(const CpabTessellation& tessellation) {
  Facets facets;
  const auto corners = static_cast<std::size_t>(tessellation.dims() + 1);
  const auto members = tessellation.cell_vertices().to_vector<std::int64_t>();
  for (std::size_t c = 0; c * corners < members.size(); ++c) {
    for (std::size_t left_out = 0; left_out < corners; ++left_out) {
      std::vector<std::int64_t> facet;
      for (std::size_t k = 0; k < corners; ++k) {
        if (k != left_out) facet.push_back(members[c * corners + k]);
      }
      std::sort(facet.begin(), facet.end());
      facets[facet].push_back(static_cast<std::int64_t>(c));
    }
  }
  return facets;
}

void add_continuity(const CpabTessellation& tessellation, const Facets& facets, Equations& equations) {
  for (const auto& [facet, cells] : facets) {
    if (cells.size() != 2) continue;
    for (const std::int64_t vertex : facet)
      equations.agree(cells[0], cells[1], position(tessellation, vertex), 1.0);
  }
}

void add_zero_boundary(const CpabTessellation& tessellation, const Facets& facets, Equations& equations) {
  const int d = tessellation.dims();
  for (const auto& [facet, cells] : facets) {
    if (cells.size() != 1) continue;
    for (int axis = 0; axis < d; ++axis) {
      const double side = position(tessellation, facet[0])[axis];
      bool across = side == 0.0 || side == 1.0;
      for (const std::int64_t vertex : facet) across = across && position(tessellation, vertex)[axis] == side;
      if (!across) continue;
      for (const std::int64_t vertex : facet) {
        equations.add(cells[0], axis, position(tessellation, vertex), 1.0, 1.0);
        equations.end_row();
      }
    }
  }
}

void add_volume_preservation(const CpabTessellation& tessellation, Equations& equations) {
  const int d = tessellation.dims();
  for (std::int64_t c = 0; c < tessellation.cells(); ++c) {
    for (int r = 0; r < d; ++r) {
      const double unit[3] = {r == 0 ? 1.0 : 0.0, r == 1 ? 1.0 : 0.0, r == 2 ? 1.0 : 0.0};
      equations.add(c, r, unit, 0.0, 1.0);
    }
    equations.end_row();
  }
}

/// Two outer cells agree along the outward normal wherever their facets on one side of the domain share a
/// vertex (2-D), or an edge inside one box (3-D).
void add_valid_outside(const CpabTessellation& tessellation, const Facets& facets, Equations& equations) {
  const int d = tessellation.dims();
  if (d == 1) return;
  const std::int64_t per_box = d == 2 ? kCpabCellsPerBox<2> : kCpabCellsPerBox<3>;
  for (int axis = 0; axis < d; ++axis) {
    for (const double side : {0.0, 1.0}) {
      const double normal[3] = {axis == 0 ? 1.0 : 0.0, axis == 1 ? 1.0 : 0.0, axis == 2 ? 1.0 : 0.0};
      std::map<std::int64_t, std::int64_t> last;  // cell last seen at a vertex (2-D) or in a box (3-D)
      for (const auto& [facet, cells] : facets) {
        bool outer = cells.size() == 1;
        for (const std::int64_t vertex : facet) outer = outer && position(tessellation, vertex)[axis] == side;
        if (!outer) continue;
        const std::vector<std::int64_t> keys = d == 2 ? facet : std::vector<std::int64_t>{cells[0] / per_box};
        for (const std::int64_t key : keys) {
          const auto [other, is_new] = last.emplace(key, cells[0]);
          if (!is_new) equations.agree(other->second, cells[0], normal, 0.0);
        }
      }
    }
  }
}

/// [cells d (d+1), nodes]: matrices of the fields that move one of the given node coordinates.
Sparse matrices_from_moves(const CpabTessellation& tessellation, const std::vector<std::int64_t>& moves) {
  const std::int64_t d = tessellation.dims();
  std::vector<std::int64_t> column(static_cast<std::size_t>(tessellation.vertices() * d), -1);
  for (std::size_t k = 0; k < moves.size(); ++k)
    column[static_cast<std::size_t>(moves[k])] = static_cast<std::int64_t>(k);
  std::vector<Eigen::Triplet<double>> entries;
  for (std::int64_t c = 0; c < tessellation.cells(); ++c) {
    const std::vector<double> weights = tessellation.node_weights(c);
    for (std::int64_t k = 0; k <= d; ++k) {
      const std::int64_t vertex = tessellation.cell_vertices().data<std::int64_t>()[c * (d + 1) + k];
      for (std::int64_t entry = 0; entry < d * (d + 1); ++entry) {
        const std::int64_t move = column[static_cast<std::size_t>(vertex * d + entry / (d + 1))];
        const double weight = weights[static_cast<std::size_t>(k * (d + 1) + entry % (d + 1))];
        if (move >= 0 && weight != 0.0) entries.emplace_back(c * d * (d + 1) + entry, move, weight);
      }
    }
  }
  Sparse result(tessellation.cells() * d * (d + 1), static_cast<Eigen::Index>(moves.size()));
  result.setFromTriplets(entries.begin(), entries.end());
  return result;
}

/// Orthonormal columns that span the null space of `equations`: unit vectors projected onto it and made
/// orthonormal in their order, those left out that depend on earlier ones.
Matrix null_space(const Matrix& equations) {
  Eigen::ColPivHouseholderQR<Matrix> qr(equations.transpose());
  qr.setThreshold(1e-9);
  const Eigen::Index unknowns = equations.cols();
  const Eigen::Index dim = unknowns - qr.rank();
  const Matrix full = qr.householderQ();
  const Matrix any = full.rightCols(dim);  // row i: unit vector i, projected, in this basis
  Matrix turned(dim, dim);
  Eigen::Index found = 0;
  for (Eigen::Index i = 0; i < unknowns && found < dim; ++i) {
    Eigen::VectorXd rest = any.row(i).transpose();
    for (int pass = 0; pass < 2; ++pass)
      rest -= turned.leftCols(found) * (turned.leftCols(found).transpose() * rest);
    if (rest.norm() > 1e-6) turned.col(found++) = rest.normalized();
  }
  CINNABAR_CHECK(found == dim, kOp, "found ", found, " of ", dim, " independent fields");
  return any * turned;
}

Tensor to_tensor(const RowMatrix& matrix, const Shape& shape) {
  return Tensor::from(std::vector<double>(matrix.data(), matrix.data() + matrix.size()), shape);
}

Eigen::Map<const RowMatrix> rows_of(const Tensor& tensor, std::int64_t columns) {
  return {tensor.data<double>(), tensor.numel() / columns, columns};
}

}  // namespace

Tensor cpab_constraint_matrix(const CpabTessellation& tessellation, const CpabConstraints& constraints) {
  const Facets facets = facets_of(tessellation);
  Equations equations(tessellation);
  add_continuity(tessellation, facets, equations);
  if (constraints.zero_boundary) add_zero_boundary(tessellation, facets, equations);
  if (constraints.volume_preserving) add_volume_preservation(tessellation, equations);
  if (constraints.valid_outside) add_valid_outside(tessellation, facets, equations);
  const RowMatrix dense(equations.matrix());
  return to_tensor(dense, {dense.rows(), dense.cols()});
}

CpabBasis::CpabBasis(const CpabTessellation& tessellation, const CpabConstraints& constraints)
    : tessellation_(tessellation), constraints_(constraints) {
  const std::int64_t d = tessellation.dims();
  std::vector<std::int64_t> moves;  // node coordinates that the boundary leaves free
  for (std::int64_t vertex = 0; vertex < tessellation.vertices(); ++vertex) {
    for (int axis = 0; axis < d; ++axis) {
      const bool held = constraints.zero_boundary && tessellation.on_boundary(vertex, axis);
      if (!held) moves.push_back(vertex * d + axis);
    }
  }
  const std::int64_t unknowns = tessellation.cells() * d * (d + 1);
  CINNABAR_CHECK(unknowns * static_cast<std::int64_t>(moves.size()) <= (std::int64_t{1} << 28), kOp,
                 "a dense basis of ", moves.size(), " fields on ", tessellation.cells(),
                 " cells is too large");
  const Sparse from_moves = matrices_from_moves(tessellation, moves);
  Equations equations(tessellation);
  if (constraints.volume_preserving) add_volume_preservation(tessellation, equations);
  if (constraints.valid_outside) add_valid_outside(tessellation, facets_of(tessellation), equations);
  const Sparse rest = equations.matrix();

  const auto free = static_cast<Eigen::Index>(moves.size());
  const Matrix combined =
      rest.rows() == 0 ? Matrix(Matrix::Identity(free, free)) : null_space(Matrix(rest * from_moves));
  dim_ = combined.cols();
  const Matrix fields = from_moves * combined;
  Eigen::HouseholderQR<Matrix> qr(fields);
  Matrix triangle = qr.matrixQR().topRows(dim_).triangularView<Eigen::Upper>();
  RowMatrix basis = (qr.householderQ() * Matrix::Identity(unknowns, dim_)).transpose();
  for (Eigen::Index k = 0; k < dim_; ++k) {  // Gram-Schmidt has a positive diagonal
    if (triangle(k, k) > 0) continue;
    triangle.row(k) *= -1.0;
    basis.row(k) *= -1.0;
  }
  matrices_ = to_tensor(basis, {dim_, tessellation.cells(), d, d + 1});
  maps_ = tessellation.maps_from_matrices(matrices_);
  const Matrix in_moves =
      triangle.transpose().triangularView<Eigen::Lower>().solve(Matrix(combined.transpose()));
  RowMatrix nodes = RowMatrix::Zero(dim_, tessellation.vertices() * d);
  for (Eigen::Index k = 0; k < free; ++k) nodes.col(moves[static_cast<std::size_t>(k)]) = in_moves.col(k);
  nodes_ = to_tensor(nodes, {dim_, tessellation.vertices(), d});
}

Tensor CpabBasis::matrices_of(const Tensor& theta) const {
  CINNABAR_CHECK(theta.rank() == 2 && theta.shape(1) == dim_, kOp, "needs theta [N, ", dim_, "], got ",
                 theta);
  const std::int64_t d = tessellation_.dims();
  const Shape shape{theta.shape(0), tessellation_.cells(), d, d + 1};
  if (dim_ == 0) return Tensor::zeros(shape, DType::f64);
  return to_tensor(rows_of(theta, dim_) * rows_of(matrices_, shape.numel() / theta.shape(0)), shape);
}

Tensor CpabBasis::theta_of(const Tensor& matrices) const {
  const std::int64_t d = tessellation_.dims();
  const std::int64_t unknowns = tessellation_.cells() * d * (d + 1);
  CINNABAR_CHECK(matrices.rank() == 4 && matrices.shape().without(0) == matrices_.shape().without(0), kOp,
                 "needs matrices [N, ", tessellation_.cells(), ", ", d, ", ", d + 1, "], got ", matrices);
  if (dim_ == 0) return Tensor::zeros({matrices.shape(0), 0}, DType::f64);
  return to_tensor(rows_of(matrices, unknowns) * rows_of(matrices_, unknowns).transpose(),
                   {matrices.shape(0), dim_});
}

Tensor CpabBasis::prior_covariance(double length, double variance) const {
  CINNABAR_CHECK(length > 0.0 && variance > 0.0, kOp, "needs a length and a variance above 0, got ", length,
                 ", ", variance);
  const std::int64_t d = tessellation_.dims();
  const std::int64_t cells = tessellation_.cells();
  const Tensor centre_tensor = tessellation_.cell_centres();
  const auto centres = rows_of(centre_tensor, d);
  Matrix kernel(cells, cells);
  for (Eigen::Index a = 0; a < cells; ++a) {
    for (Eigen::Index b = 0; b < cells; ++b) {
      kernel(a, b) =
          variance * std::exp(-(centres.row(a) - centres.row(b)).squaredNorm() / (2.0 * length * length));
    }
  }
  Matrix covariance = Matrix::Zero(dim_, dim_);
  const std::int64_t entries = d * (d + 1);
  for (std::int64_t entry = 0; entry < entries && dim_ > 0; ++entry) {  // one entry of the matrices at a time
    Matrix one(dim_, cells);
    for (Eigen::Index k = 0; k < dim_; ++k) {
      for (Eigen::Index c = 0; c < cells; ++c)
        one(k, c) = matrices_.data<double>()[(k * cells + c) * entries + entry];
    }
    covariance += one * kernel * one.transpose();
  }
  return to_tensor(RowMatrix(0.5 * (covariance + covariance.transpose())), {dim_, dim_});
}

Tensor CpabBasis::sample_prior(std::int64_t count, double length, double variance,
                               const RandomSequence& sequence) const {
  CINNABAR_CHECK(count >= 0, kOp, count, " samples");
  Tensor normal = Tensor::empty({count, dim_}, DType::f64);
  if (normal.numel() == 0) return normal;
  cpu::random.normal(sequence, 0.0, 1.0, normal);
  const Tensor covariance = prior_covariance(length, variance);
  // A symmetric root: a smooth kernel is often singular to rounding, where Cholesky's factor fails.
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen{Matrix(rows_of(covariance, dim_))};
  const Matrix root = eigen.eigenvectors() * eigen.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal() *
                      eigen.eigenvectors().transpose();
  return to_tensor(rows_of(normal, dim_) * root, {count, dim_});
}

}  // namespace cinnabar
