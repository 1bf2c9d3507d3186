#include "registration/affine_transform.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "engine/error.hpp"
#include "registration/output_file.hpp"

namespace cinnabar::registration {

namespace {

/// One transform as ITK stores it: class name, parameters and fixed parameters.
struct ItkTransform {
  std::string name;
  std::vector<double> parameters;
  std::vector<double> fixed;
};

using Matrix3 = std::array<double, 9>;

[[noreturn]] void fail_read(const std::filesystem::path& path, const std::string& what) {
  fail_input("cannot read '", path.string(), "': ", what);
}

std::string read_small_file(const std::filesystem::path& path) {
  constexpr std::uintmax_t kLargest = 1 << 20;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) fail_read(path, "there is no such file; check the name");
  if (!std::filesystem::is_regular_file(path, error)) fail_read(path, "it is not a regular file");
  if (std::filesystem::file_size(path, error) > kLargest)
    fail_read(path, "it is too large for an affine transform");
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_read(path, "permission denied; make the file readable (chmod +r)");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

template <class T>
T take(std::string_view& bytes, bool swapped) {
  char raw[sizeof(T)];
  std::memcpy(raw, bytes.data(), sizeof raw);
  if (swapped) std::reverse(std::begin(raw), std::end(raw));
  bytes.remove_prefix(sizeof raw);
  T value;
  std::memcpy(&value, raw, sizeof value);
  return value;
}

/// One Matlab v4 matrix: five int32 (type, rows, columns, imaginary, name length), the name, the values. The
/// type's decimal digits are byte order, 0, precision (0 double, 1 float) and 0; vnl counts row order in the
/// hundreds, which is the same thing for a vector.
bool take_matlab_vector(std::string_view& bytes, std::string& name, std::vector<double>& values) {
  if (bytes.size() < 20) return false;
  std::string_view rest = bytes;
  bool swapped = false;
  auto type = take<std::int32_t>(rest, false);
  if (type < 0 || type > 4999) {
    swapped = true;
    std::string_view again = bytes;
    type = take<std::int32_t>(again, true);
  }
  const auto rows = take<std::int32_t>(rest, swapped);
  const auto columns = take<std::int32_t>(rest, swapped);
  const auto imaginary = take<std::int32_t>(rest, swapped);
  const auto name_bytes = take<std::int32_t>(rest, swapped);
  const int precision = type % 100 / 10;
  const bool vector = rows >= 0 && columns >= 0 && rows <= 64 && columns <= 64 && (rows == 1 || columns == 1);
  if (type < 0 || type > 1999 || precision > 1 || imaginary != 0 || !vector || name_bytes < 1 ||
      name_bytes > 256) {
    return false;
  }
  const std::size_t count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  const std::size_t width = precision == 0 ? 8 : 4;
  if (rest.size() < static_cast<std::size_t>(name_bytes) + count * width) return false;
  name = std::string(rest.substr(0, static_cast<std::size_t>(name_bytes)).data());
  rest.remove_prefix(static_cast<std::size_t>(name_bytes));
  values.clear();
  for (std::size_t i = 0; i < count; ++i) {
    values.push_back(width == 8 ? take<double>(rest, swapped)
                                : static_cast<double>(take<float>(rest, swapped)));
  }
  bytes = rest;
  return true;
}

ItkTransform parse_matlab(std::string_view bytes, const std::filesystem::path& path) {
  ItkTransform transform;
  std::string fixed_name;
  if (!take_matlab_vector(bytes, transform.name, transform.parameters) ||
      !take_matlab_vector(bytes, fixed_name, transform.fixed) || fixed_name != "fixed") {
    fail_read(path, "it is neither an ITK transform (.mat, .tfm) nor a 4x4 matrix of numbers");
  }
  if (!bytes.empty()) fail_read(path, "it holds more than one transform; give them as separate files");
  return transform;
}

std::vector<double> parse_numbers(const std::string& text, const std::filesystem::path& path) {
  std::istringstream words(text);
  std::vector<double> numbers;
  for (std::string word; words >> word;) {
    double number = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error != std::errc() || end != word.data() + word.size()) {
      fail_read(path, "'" + word + "' is not a number");
    }
    numbers.push_back(number);
  }
  return numbers;
}

ItkTransform parse_itk_text(const std::string& text, const std::filesystem::path& path) {
  ItkTransform transform;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t colon = line.find(':');
    if (line.starts_with("#") || colon == std::string::npos) continue;
    const std::string key = line.substr(0, colon);
    const std::string value = line.substr(colon + 1);
    if (key == "Transform") {
      if (!transform.name.empty()) {
        fail_read(path, "it holds more than one transform; give them as separate files");
      }
      std::istringstream(value) >> transform.name;
    } else if (key == "Parameters") {
      transform.parameters = parse_numbers(value, path);
    } else if (key == "FixedParameters") {
      transform.fixed = parse_numbers(value, path);
    }
  }
  return transform;
}

Matrix3 multiply(const Matrix3& a, const Matrix3& b) {
  Matrix3 c{};
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < 3; ++j) {
      for (std::size_t k = 0; k < 3; ++k) c[i * 3 + j] += a[i * 3 + k] * b[k * 3 + j];
    }
  }
  return c;
}

/// Rotations about x, y, z; Euler3DTransform applies them as Rz Rx Ry, or Rz Ry Rx when ComputeZYX is set.
Matrix3 euler_matrix(const std::vector<double>& angles, bool zyx) {
  const double cx = std::cos(angles[0]), sx = std::sin(angles[0]);
  const double cy = std::cos(angles[1]), sy = std::sin(angles[1]);
  const double cz = std::cos(angles[2]), sz = std::sin(angles[2]);
  const Matrix3 x{1, 0, 0, 0, cx, -sx, 0, sx, cx};
  const Matrix3 y{cy, 0, sy, 0, 1, 0, -sy, 0, cy};
  const Matrix3 z{cz, -sz, 0, sz, cz, 0, 0, 0, 1};
  return zyx ? multiply(z, multiply(y, x)) : multiply(z, multiply(x, y));
}

/// A unit quaternion given by its vector part.
Matrix3 versor_matrix(const std::vector<double>& p, double scale) {
  const double x = p[0], y = p[1], z = p[2];
  const double w = std::sqrt(std::max(0.0, 1.0 - x * x - y * y - z * z));
  Matrix3 m{1 - 2 * (y * y + z * z), 2 * (x * y - z * w),     2 * (x * z + y * w),
            2 * (x * y + z * w),     1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w),     2 * (y * z + x * w),     1 - 2 * (x * x + y * y)};
  for (double& entry : m) entry *= scale;
  return m;
}

/// y = A (x - c) + c + t in LPS, as a RAS matrix. Negating x and y on both sides flips the sign of the
/// entries that mix {x, y} with {z, 1}.
Affine from_itk(const Matrix3& a, const Point& centre, const Point& translation) {
  Affine affine;
  affine.centre = {-centre[0], -centre[1], centre[2]};
  for (std::size_t row = 0; row < 3; ++row) {
    double offset = centre[row] + translation[row];
    for (std::size_t column = 0; column < 3; ++column) {
      affine.matrix[row * 4 + column] = a[row * 3 + column] * ((row < 2) == (column < 2) ? 1.0 : -1.0);
      offset -= a[row * 3 + column] * centre[column];
    }
    affine.matrix[row * 4 + 3] = row < 2 ? -offset : offset;
  }
  return affine;
}

Affine interpret(const ItkTransform& transform, const std::filesystem::path& path) {
  const std::vector<double>& p = transform.parameters;
  const auto named = [&](std::string_view kind) {
    return transform.name.starts_with(std::string(kind) + "_");
  };
  const auto require = [&](std::size_t count) {
    if (p.size() != count || (transform.fixed.size() < 3 && !named("TranslationTransform"))) {
      fail_read(path, detail::concat("its ", transform.name, " has ", p.size(), " parameters and ",
                                     transform.fixed.size(), " fixed ones; the file is damaged"));
    }
  };
  const auto tail = [&](std::size_t first) { return Point{p[first], p[first + 1], p[first + 2]}; };
  const auto centre = [&] { return Point{transform.fixed[0], transform.fixed[1], transform.fixed[2]}; };
  if (!transform.name.ends_with("_3_3")) {
    fail_read(path, "its transform is '" + transform.name + "', which is not three-dimensional");
  }
  if (named("AffineTransform") || named("MatrixOffsetTransformBase")) {
    require(12);
    Matrix3 a{};
    std::copy_n(p.begin(), 9, a.begin());
    return from_itk(a, centre(), tail(9));
  }
  if (named("Euler3DTransform")) {
    require(6);
    const bool zyx = transform.fixed.size() > 3 && transform.fixed[3] != 0.0;
    return from_itk(euler_matrix(p, zyx), centre(), tail(3));
  }
  if (named("VersorRigid3DTransform")) {
    require(6);
    return from_itk(versor_matrix(p, 1.0), centre(), tail(3));
  }
  if (named("Similarity3DTransform")) {
    require(7);
    return from_itk(versor_matrix(p, p[6]), centre(), tail(3));
  }
  if (named("TranslationTransform")) {
    require(3);
    return from_itk({1, 0, 0, 0, 1, 0, 0, 0, 1}, {0, 0, 0}, tail(0));
  }
  fail_read(path, "its transform '" + transform.name +
                      "' is not supported; save it as AffineTransform (for example with c3d_affine_tool)");
}

Affine parse_matrix_text(const std::string& text, const std::filesystem::path& path) {
  if (path.extension() == ".mat") {
    fail_read(path,
              "a text matrix named .mat is FSL's convention, which depends on the images; convert it to "
              "ITK (c3d_affine_tool -ref -src -fsl2ras -oitk)");
  }
  const std::vector<double> numbers = parse_numbers(text, path);
  Affine affine;
  if (numbers.size() != 16)
    fail_read(path, detail::concat("it holds ", numbers.size(), " numbers, not a 4x4 matrix"));
  std::copy(numbers.begin(), numbers.end(), affine.matrix.begin());
  for (std::size_t i = 12; i < 16; ++i) {
    if (std::abs(affine.matrix[i] - kIdentity4[i]) > 1e-6) fail_read(path, "its last row is not 0 0 0 1");
  }
  return affine;
}

ItkTransform to_itk(const Affine& affine) {
  ItkTransform transform{
      "AffineTransform_double_3_3", {}, {-affine.centre[0], -affine.centre[1], affine.centre[2]}};
  const Point image_of_centre = transform_point(affine.matrix, affine.centre);
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t column = 0; column < 3; ++column) {
      const double entry = affine.matrix[row * 4 + column];
      transform.parameters.push_back((row < 2) == (column < 2) ? entry : -entry);
    }
  }
  for (std::size_t row = 0; row < 3; ++row) {
    const double shift = image_of_centre[row] - affine.centre[row];
    transform.parameters.push_back(row < 2 ? -shift : shift);
  }
  return transform;
}

void append_matlab_vector(std::string& bytes, const std::string& name, const std::vector<double>& values) {
  const std::int32_t header[5] = {0, static_cast<std::int32_t>(values.size()), 1, 0,
                                  static_cast<std::int32_t>(name.size() + 1)};
  bytes.append(reinterpret_cast<const char*>(header), sizeof header);
  bytes.append(name.c_str(), name.size() + 1);
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double));
}

std::string join(const std::vector<double>& values) {
  std::ostringstream text;
  text.precision(17);
  for (const double value : values) text << ' ' << value;
  return text.str();
}

}  // namespace

Affine read_affine(const std::filesystem::path& path) {
  const std::string content = read_small_file(path);
  const bool text = !content.empty() && content.find('\0') == std::string::npos;
  Affine affine;
  if (content.starts_with("#Insight Transform File")) {
    affine = interpret(parse_itk_text(content, path), path);
  } else if (text) {
    affine = parse_matrix_text(content, path);
  } else {
    affine = interpret(parse_matlab(content, path), path);
  }
  if (!is_invertible(affine.matrix)) fail_read(path, "its matrix is singular or not finite");
  return affine;
}

void write_affine(const std::filesystem::path& path, const Affine& affine) {
  CINNABAR_CHECK(is_invertible(affine.matrix), "write_affine", "the matrix is singular or not finite");
  const std::string extension = path.extension().string();
  std::string bytes;
  if (extension == ".mat") {
    const ItkTransform transform = to_itk(affine);
    append_matlab_vector(bytes, transform.name, transform.parameters);
    append_matlab_vector(bytes, "fixed", transform.fixed);
  } else if (extension == ".tfm") {
    const ItkTransform transform = to_itk(affine);
    bytes = "#Insight Transform File V1.0\n#Transform 0\nTransform: " + transform.name +
            "\nParameters:" + join(transform.parameters) + "\nFixedParameters:" + join(transform.fixed) +
            "\n";
  } else if (extension == ".txt") {
    for (std::size_t row = 0; row < 4; ++row) {
      const auto first = affine.matrix.begin() + static_cast<std::ptrdiff_t>(4 * row);
      bytes += join({first, first + 4}).substr(1) + "\n";
    }
  } else {
    fail_input("cannot write '", path.string(), "': an affine transform is written as .mat, .tfm or .txt");
  }
  OutputFile file(path);
  file.write(bytes);
  file.commit();
}

}  // namespace cinnabar::registration
