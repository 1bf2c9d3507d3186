#pragma once

#include "kernels/cpab_cells.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

enum class CpabIntegrator {
  /// The true flow: in each cell the exponential of its map up to the time at which the point leaves through
  /// a face, then the next cell. In 1-D in closed form (exponential and hitting time).
  exact,
  /// The stepping scheme of the papers: `steps` times a lookup of the cell and its exponential over 1 /
  /// steps.
  steps,
};

struct CpabOptions {
  CpabIntegrator integrator = CpabIntegrator::exact;
  int steps = 50;  ///< for CpabIntegrator::steps; at most 1024
};

/// Flow of continuous piecewise-affine velocity fields over unit time (Freifeld et al., IEEE TPAMI 2017,
/// section 3.4; Detlefsen, Freifeld and Hauberg, "Deep diffeomorphic transformer networks", CVPR 2018).
///
/// Shapes: maps [N, cells, d, d+1], d = 1 to 3: the cells' velocities du/dt = M [u; 1] in cell units
/// (kernels/cpab_tessellation.hpp), cells in the order of kernels/cpab_cells.hpp; points [P, d], the same in
/// every batch entry, or [N, P, d], in domain units with x first; output [N, P, d]. Outside [0, 1]^d the map
/// of the cell of the nearest point of the domain holds.
///
/// The exact flow leaves a cell when a point is 4e-7 (float32) or 2e-15 (float64) of a cell beyond a face, so
/// grazing a face within that distance is no exit, and a vertex is passed by one face after the other. A
/// trajectory takes at most 511 exits (4095 in 1-D) and from then on looks its cell up once a step, as the
/// stepping scheme does; that happens only where a field jumps outside the domain and pushes a point onto the
/// jump from both sides. Exits are certain to be found, and the series accurate, where the absolute row
/// sums of a map's linear part are at most 256.
///
/// A NaN coordinate gives NaN coordinates and adds nothing to the gradient of the maps. All kernels assign
/// their outputs and are deterministic: the same bits for any number of threads.
struct Cpab {
  void (*forward)(const Tensor& maps, const Tensor& points, const CpabGrid& grid, const CpabOptions& options,
                  Tensor& output);
  /// Exact adjoint of the forward pass that the options name, by a sweep backwards over the cells a point
  /// went through, which are recomputed. `grad_maps`, shaped like the maps, may be undefined where it is not
  /// wanted; grad_points is [N, P, d]. Where the velocity jumps at a face, the change of the exit time
  /// counts.
  void (*backward)(const Tensor& grad_output, const Tensor& maps, const Tensor& points, const CpabGrid& grid,
                   const CpabOptions& options, Tensor& grad_maps, Tensor& grad_points);
  /// Velocities [N, P, d] in domain units.
  void (*velocity)(const Tensor& maps, const Tensor& points, const CpabGrid& grid, Tensor& velocity);
  /// log det of the Jacobian of the flow [N, P]: the integral of the divergence along the trajectory
  /// (Liouville), exact for either integrator away from jumps of the field.
  void (*log_determinant)(const Tensor& maps, const Tensor& points, const CpabGrid& grid,
                          const CpabOptions& options, Tensor& log_determinant);
};

CINNABAR_OP(Cpab, cpab);

struct CpabShape {
  std::int64_t batch = 0;
  std::int64_t cells = 0;
  std::int64_t points = 0;
  bool shared_points = false;  ///< points are [P, d]
};

/// Checks maps against the grid, and the options. Throws Error that names `op`.
void cpab_check_field(const char* op, const Tensor& maps, const CpabGrid& grid, const CpabOptions& options);

/// Checks maps and points against the grid and against `output`, which is [N, P, d] or without the last axis
/// if `scalar`, and the options. Throws Error.
CpabShape cpab_shape(const Tensor& maps, const Tensor& points, const CpabGrid& grid,
                     const CpabOptions& options, const Tensor& output, bool scalar = false);

/// Checks the results of `backward` against its inputs. Throws Error.
void cpab_check_gradients(const Tensor& maps, const Tensor& grad_output, const Tensor& grad_maps,
                          const Tensor& grad_points);

}  // namespace cinnabar
