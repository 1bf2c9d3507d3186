#pragma once

// The cells of a CPAB tessellation (Freifeld, Hauberg, Batmanghelich and Fisher, "Transformations based on
// continuous piecewise-affine velocity fields", IEEE TPAMI 2017, section 3): which cell a point lies in, the
// faces of a cell and what lies behind them. Shared by CPU and CUDA.
//
// [0, 1]^D is cut into boxes[0] x boxes[1] x boxes[2] boxes, each box into simplices:
//   1-D: the interval itself;
//   2-D: four triangles round the centre, type 0 at y = 0, then 1 at x = 1, 2 at y = 1, 3 at x = 0;
//   3-D: type 0 is the central tetrahedron, types 1 to 4 are the corners it leaves. Boxes of odd index sum
//   are
//        turned by a quarter about z, so that the diagonals of neighbours meet.
// Cell index: cells_per_box * (i + nx * (j + ny * k)) + type.
//
// Cell units: a coordinate x becomes s = x * boxes, and u = s - box is 0 to 1 across the box. All the
// arithmetic of the flow happens in u: a face then has small integers as coefficients, so the tests are
// exact, and float32 keeps its precision relative to one cell.
//
// Outside the domain a point belongs to the cell of the nearest point of the domain.

#include <cstdint>

#include "engine/host_device.hpp"

/// A function apart from its callers: rare, and to take none of their registers.
#if defined(__CUDACC__)
#define CINNABAR_HD_APART __host__ __device__ __noinline__
#else
#define CINNABAR_HD_APART [[gnu::noinline]] inline
#endif

namespace cinnabar {

/// Boxes of a tessellation along x, y and z; 1 on the axes beyond `dims`.
struct CpabGrid {
  int dims = 0;
  std::int32_t boxes[3] = {1, 1, 1};
};

template <int D>
constexpr int kCpabCellsPerBox = D == 1   ? 1
                                 : D == 2 ? 4
                                          : 5;

/// The half-space normal . u + offset >= 0 of one face of a cell, in box coordinates.
template <class T, int D>
struct CpabFace {
  T normal[D];
  T offset;

  CINNABAR_HD T operator()(const T* u) const { return offset + along(u); }
  CINNABAR_HD T along(const T* direction) const {
    T sum = normal[0] * direction[0];
    CINNABAR_UNROLL
    for (int a = 1; a < D; ++a) sum += normal[a] * direction[a];
    return sum;
  }
  /// Sum of |normal|: 1 to 3.
  CINNABAR_HD T size() const {
    T sum = T(0);
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) sum += normal[a] * normal[a];  // each is -1, 0 or 1
    return sum;
  }
};

/// Corner of the box that a corner tetrahedron holds: bit a is its coordinate on axis a.
CINNABAR_HD int cpab_apex(int parity, int type) {
  constexpr int kEven = 0x12740;  // types 1 to 4: (0,0,1), (1,1,1), (0,1,0), (1,0,0)
  constexpr int kOdd = 0x30650;   // the same turned about z
  return ((parity != 0 ? kOdd : kEven) >> (4 * type)) & 7;
}

/// The corner tetrahedron with that apex.
CINNABAR_HD int cpab_type_of_apex(int parity, int apex) {
  constexpr unsigned kEven = 0x20010340;
  constexpr unsigned kOdd = 0x02104003;
  return static_cast<int>((parity != 0 ? kOdd : kEven) >> (4 * apex) & 7U);
}

/// The face of a corner tetrahedron towards the central one: distances from the apex add up to 1.
template <class T>
CINNABAR_HD CpabFace<T, 3> cpab_diagonal(int apex) {
  CpabFace<T, 3> face;
  face.offset = T(1);
  CINNABAR_UNROLL
  for (int a = 0; a < 3; ++a) {
    const bool high = ((apex >> a) & 1) != 0;
    face.normal[a] = high ? T(1) : T(-1);
    face.offset -= high ? T(1) : T(0);
  }
  return face;
}

/// The box's own face on one axis, seen from inside.
template <class T, int D>
CINNABAR_HD CpabFace<T, D> cpab_box_face(int axis, bool high) {
  CpabFace<T, D> face;
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) face.normal[a] = a != axis ? T(0) : high ? T(-1) : T(1);
  face.offset = high ? T(1) : T(0);
  return face;
}

/// Face 0..D of a cell. 2-D: the diagonals y = x and x + y = 1, then the side of the box. 3-D corners: the
/// diagonal, then the sides along x, y, z; central cell: towards types 1 to 4.
template <class T, int D>
CINNABAR_HD CpabFace<T, D> cpab_face(int parity, int type, int face) {
  if constexpr (D == 1) {
    return cpab_box_face<T, 1>(0, face == 1);
  } else if constexpr (D == 2) {
    if (face == 2) return cpab_box_face<T, 2>(1 - type % 2, type == 1 || type == 2);
    if (face == 0) {
      const T sign = type < 2 ? T(1) : T(-1);
      return {{sign, -sign}, T(0)};
    }
    const T sign = type == 0 || type == 3 ? T(1) : T(-1);
    return {{-sign, -sign}, sign};
  } else {
    if (type != 0 && face != 0)
      return cpab_box_face<T, 3>(face - 1, ((cpab_apex(parity, type) >> (face - 1)) & 1) != 0);
    CpabFace<T, 3> diagonal = cpab_diagonal<T>(cpab_apex(parity, type != 0 ? type : face + 1));
    if (type == 0) {
      CINNABAR_UNROLL
      for (int a = 0; a < 3; ++a) diagonal.normal[a] = -diagonal.normal[a];
      diagonal.offset = -diagonal.offset;
    }
    return diagonal;
  }
}

/// What lies behind a face: a cell of the same box (`axis` -1), or of the next box along an axis.
struct CpabNeighbour {
  int type;
  int axis;
  int direction;
};

template <int D>
CINNABAR_HD CpabNeighbour cpab_neighbour(int parity, int type, int face) {
  if constexpr (D == 1) {
    return {0, 0, face == 1 ? 1 : -1};
  } else if constexpr (D == 2) {
    if (face == 2) return {type ^ 2, 1 - type % 2, type == 1 || type == 2 ? 1 : -1};
    return {face == 0 ? type ^ 3 : type ^ 1, -1, 0};
  } else {
    if (type == 0) return {face + 1, -1, 0};
    if (face == 0) return {0, -1, 0};
    const int apex = cpab_apex(parity, type);
    const int bit = 1 << (face - 1);
    return {cpab_type_of_apex(1 - parity, apex ^ bit), face - 1, (apex & bit) != 0 ? 1 : -1};
  }
}

/// Type of the cell that holds a point of the box; on a face the first test that holds decides.
template <class T, int D>
CINNABAR_HD int cpab_type(int parity, const T* u) {
  if constexpr (D == 1) {
    return 0;
  } else if constexpr (D == 2) {
    const bool right_or_top = T(1) - u[0] < u[1];
    return u[0] < u[1] ? (right_or_top ? 2 : 3) : (right_or_top ? 1 : 0);
  } else {
    CINNABAR_UNROLL
    for (int type = 1; type < 5; ++type) {
      if (cpab_diagonal<T>(cpab_apex(parity, type))(u) >= T(0)) return type;
    }
    return 0;
  }
}

/// Where a point is: its box, the type of its cell there, and on which side of the domain it lies along each
/// axis (-1 below 0, 1 above 1, else 0).
template <int D>
struct CpabPlace {
  std::int32_t box[D];
  std::int32_t side[D];
  std::int32_t type;

  CINNABAR_HD int parity() const {
    if constexpr (D < 3) {
      return 0;
    } else {
      return (box[0] + box[1] + box[2]) & 1;
    }
  }
  CINNABAR_HD std::int32_t cell(const CpabGrid& grid) const {
    std::int32_t index = box[D - 1];
    CINNABAR_UNROLL
    for (int a = D - 2; a >= 0; --a) index = index * grid.boxes[a] + box[a];
    return index * kCpabCellsPerBox<D> + type;
  }
  CINNABAR_HD bool inside() const {
    bool all = true;
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) all = all && side[a] == 0;
    return all;
  }
};

/// Type of the cell of the box's point nearest to u.
template <class T, int D>
CINNABAR_HD int cpab_clamped_type(int parity, const T* u) {
  T nearest[D];
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) nearest[a] = u[a] > T(0) ? (u[a] < T(1) ? u[a] : T(1)) : T(0);
  return cpab_type<T, D>(parity, nearest);
}

/// Place of a point given in cell units, and its coordinates u in its box. A point at the upper end of the
/// domain lies in the last box, in float32 too; a NaN goes to box 0.
template <class T, int D>
CINNABAR_HD CpabPlace<D> cpab_locate(const CpabGrid& grid, const T* s, T* u) {
  CpabPlace<D> place;
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) {
    const T last = static_cast<T>(grid.boxes[a]);
    place.side[a] = s[a] < T(0) ? -1 : s[a] > last ? 1 : 0;
    const T bounded = s[a] > T(0) ? (s[a] < last ? s[a] : last) : T(0);
    const auto box = static_cast<std::int32_t>(bounded);
    place.box[a] = box < grid.boxes[a] ? box : grid.boxes[a] - 1;
    u[a] = s[a] - static_cast<T>(place.box[a]);
  }
  place.type = cpab_clamped_type<T, D>(place.parity(), u);
  return place;
}

/// Number of faces a place can have: those of the cell, and on each axis the plane that bounds the outside.
template <int D>
constexpr int kCpabFaces = 2 * D + 1;

/// Face of a place. Beside the domain the cell's faces are those of the nearest point, so they do not depend
/// on the coordinates that lie outside; face D + 1 + a is the plane back into the domain on axis a.
template <class T, int D>
CINNABAR_HD CpabFace<T, D> cpab_face_at(const CpabPlace<D>& place, int face) {
  if (face > D) {
    CpabFace<T, D> plane;
    plane.offset = T(0);
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) {
      const bool beside = face == D + 1 + a;
      plane.normal[a] = !beside ? T(0) : place.side[a] < 0 ? T(-1) : T(1);
      if (beside && place.side[a] > 0) plane.offset = T(-1);
    }
    return plane;
  }
  CpabFace<T, D> own = cpab_face<T, D>(place.parity(), place.type, face);
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) {
    if (place.side[a] > 0) own.offset += own.normal[a];
    if (place.side[a] != 0) own.normal[a] = T(0);
  }
  return own;
}

template <class T, int D>
struct CpabPoint {
  T u[D];  ///< in the box of its place
};

/// A place, and a point's coordinates in its box.
template <class T, int D>
struct CpabArrival {
  CpabPlace<D> place;
  CpabPoint<T, D> point;
};

/// Goes from a cell of the domain through a face into another one; false, and nothing done, where the domain
/// ends there.
template <class T, int D>
CINNABAR_HD bool cpab_cross(const CpabGrid& grid, int face, CpabPlace<D>& place, T* u) {
  const CpabNeighbour behind = cpab_neighbour<D>(place.parity(), place.type, face);
  std::int32_t direction[D];
  bool leaves = false;
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) {
    direction[a] = a == behind.axis ? behind.direction : 0;
    const std::int32_t box = place.box[a] + direction[a];
    leaves = leaves || box < 0 || box >= grid.boxes[a];
  }
  if (leaves) return false;
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) {
    place.box[a] += direction[a];
    u[a] -= static_cast<T>(direction[a]);
  }
  place.type = behind.type;
  return true;
}

/// Goes through a face out of the domain, into it, or beside it, where cells can shrink to planes: the new
/// place is looked up a distance `beyond` behind the face.
template <class T, int D>
CINNABAR_HD_APART CpabArrival<T, D> cpab_cross_outside(CpabGrid grid, int face, T beyond,
                                                       CpabArrival<T, D> from) {
  const CpabFace<T, D> plane = cpab_face_at<T, D>(from.place, face);
  T s[D];
  T found[D];
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a)
    s[a] = from.point.u[a] + static_cast<T>(from.place.box[a]) - plane.normal[a] * beyond;
  const CpabPlace<D> next = cpab_locate<T, D>(grid, s, found);
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) from.point.u[a] += static_cast<T>(from.place.box[a] - next.box[a]);
  return {next, from.point};
}

/// Corner k = 0..D of a cell, in box coordinates.
template <class T, int D>
CINNABAR_HD void cpab_corner(int parity, int type, int k, T* u) {
  if constexpr (D == 1) {
    u[0] = static_cast<T>(k);
  } else if constexpr (D == 2) {
    const int turn = (type + k - 1) & 3;  // corners of the box in the order (0,0), (1,0), (1,1), (0,1)
    u[0] = k == 0 ? T(0.5) : turn == 1 || turn == 2 ? T(1) : T(0);
    u[1] = k == 0 ? T(0.5) : turn >= 2 ? T(1) : T(0);
  } else {
    // The central cell's corners are those that no corner cell holds: the apexes of the other parity.
    const int bits =
        type == 0 ? cpab_apex(1 - parity, k + 1) : cpab_apex(parity, type) ^ (k == 0 ? 0 : 1 << (k - 1));
    CINNABAR_UNROLL
    for (int a = 0; a < 3; ++a) u[a] = static_cast<T>((bits >> a) & 1);
  }
}

/// Number of corner k of a cell among the vertices: first the corners of all boxes, x fastest, then in 2-D
/// the centres.
template <int D>
CINNABAR_HD std::int32_t cpab_vertex(const CpabGrid& grid, const std::int32_t* box, int parity, int type,
                                     int k) {
  if constexpr (D == 2) {
    if (k == 0) return (grid.boxes[0] + 1) * (grid.boxes[1] + 1) + box[0] + grid.boxes[0] * box[1];
  }
  float u[D];
  cpab_corner<float, D>(parity, type, k, u);
  std::int32_t index = 0;
  CINNABAR_UNROLL
  for (int a = D - 1; a >= 0; --a)
    index = index * (grid.boxes[a] + 1) + box[a] + static_cast<std::int32_t>(u[a]);
  return index;
}

/// Barycentric coordinate of corner k of a cell as a function of [u; 1]: d + 1 weights. A field with
/// velocities v_k at its corners is their sum of v_k times this.
template <class T, int D>
CINNABAR_HD void cpab_corner_weights(int parity, int type, int k, T* weights) {
  T corner[D];
  cpab_corner<T, D>(parity, type, k, corner);
  for (int face = 0; face <= D; ++face) {
    const CpabFace<T, D> plane = cpab_face<T, D>(parity, type, face);
    const T height = plane(corner);
    if (height == T(0)) continue;  // all faces but the opposite one hold the corner
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) weights[a] = plane.normal[a] / height;
    weights[D] = plane.offset / height;
  }
}

}  // namespace cinnabar
