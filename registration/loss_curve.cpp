#include "registration/loss_curve.hpp"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

#include "registration/output_file.hpp"

namespace cinnabar::registration {

namespace {

using detail::concat;

constexpr double kWidth = 760, kHeight = 440;
constexpr double kLeft = 70, kRight = 25, kTop = 50, kBottom = 55;
constexpr double kHighest = 1.5;    ///< ratios above it are cut off
constexpr int kTicks = 6;           ///< about so many an axis
constexpr std::size_t kSmooth = 9;  ///< points averaged into one of the smooth line

struct Point {
  double x, y;
};

/// Nine digits, or nothing for what was not measured.
std::string cell(double value) {
  if (!std::isfinite(value)) return {};
  std::ostringstream text;
  text << std::setprecision(9) << value;
  return text.str();
}

/// 1, 2 or 5 times a power of ten that divides a range into about kTicks.
double tick_distance(double range) {
  const double rough = range / kTicks, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) return factor * power;
  }
  return 10.0 * power;
}

/// One axis: the values at its ends and where they lie in the picture.
struct Axis {
  double low, high, first, last;
  double operator()(double value) const { return first + (value - low) / (high - low) * (last - first); }
  std::vector<double> ticks() const {
    const double distance = tick_distance(high - low);
    std::vector<double> values;
    // + 0.0 makes 0 of -0.
    for (double k = std::ceil(low / distance - 1e-9) + 0.0; k * distance <= high * (1.0 + 1e-9); ++k) {
      values.push_back(k * distance);
    }
    return values;
  }
};

std::string text_at(double x, double y, const char* anchor, const std::string& text) {
  return concat("<text x=\"", x, "\" y=\"", y, "\" text-anchor=\"", anchor, "\">", text, "</text>\n");
}

std::string line(const Point& from, const Point& to, const char* style) {
  return concat("<line class=\"", style, "\" x1=\"", from.x, "\" y1=\"", from.y, "\" x2=\"", to.x, "\" y2=\"",
                to.y, "\"/>\n");
}

std::string path(const std::vector<Point>& points, const Axis& x, const Axis& y, const char* style) {
  std::string text = concat("<polyline class=\"", style, "\" fill=\"none\" points=\"");
  for (const Point& point : points) text += concat(x(point.x), ",", y(point.y), " ");
  return text += "\"/>\n";
}

std::vector<Point> ratios(const std::vector<LossPoint>& curve, TrainingLoss LossPoint::*kind) {
  std::vector<Point> points;
  for (const LossPoint& point : curve) {
    if (std::isfinite((point.*kind).ratio)) points.push_back({point.epoch, (point.*kind).ratio});
  }
  return points;
}

/// Means over windows that shrink at the ends.
std::vector<Point> smoothed(const std::vector<Point>& points) {
  std::vector<Point> result;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::size_t reach = std::min({kSmooth / 2, i, points.size() - 1 - i});
    double sum = 0.0;
    for (std::size_t k = i - reach; k <= i + reach; ++k) sum += points[k].y;
    result.push_back({points[i].x, sum / static_cast<double>(2 * reach + 1)});
  }
  return result;
}

std::string draw_axes(const Axis& x, const Axis& y) {
  std::string text;
  for (const double value : y.ticks()) {
    text += line({x.first, y(value)}, {x.last, y(value)}, "grid");
    text += text_at(x.first - 8, y(value) + 4, "end", concat(value));
  }
  for (const double value : x.ticks()) {
    text += line({x(value), y.first}, {x(value), y.first + 5}, "axis");
    text += text_at(x(value), y.first + 19, "middle", concat(value));
  }
  text += line({x.first, y.first}, {x.last, y.first}, "axis");
  text += line({x.first, y.first}, {x.first, y.last}, "axis");
  text += text_at(0.5 * (x.first + x.last), kHeight - 12, "middle", "epoch");
  return text += text_at(x.first - 55, y.last - 22, "start", "loss relative to predicting zero");
}

std::string draw_legend(const std::vector<Point>& validation) {
  const double right = kWidth - kRight, y = kTop - 22;
  std::string text = line({right - 290, y - 4}, {right - 265, y - 4}, "training");
  text += text_at(right - 258, y, "start", "training");
  if (validation.empty()) return text;
  text += line({right - 185, y - 4}, {right - 160, y - 4}, "validation");
  const auto best = std::min_element(validation.begin(), validation.end(),
                                     [](const Point& a, const Point& b) { return a.y < b.y; });
  return text += text_at(right - 153, y, "start", concat("validation, best ", best->y));
}

/// Axes that show all epochs, the ratio 1 and the points; the first batches may be far above.
std::pair<Axis, Axis> axes_for(const std::vector<Point>& training, const std::vector<Point>& validation) {
  Axis x{0.0, 1e-9, kLeft, kWidth - kRight};
  Axis y{1.0, 1.0, kHeight - kBottom, kTop};
  for (const auto* points : {&training, &validation}) {
    for (const Point& point : *points) {
      x.high = std::max(x.high, point.x);
      y.low = std::min(y.low, point.y);
      y.high = std::max(y.high, std::min(point.y, kHighest));
    }
  }
  const double margin = std::max(0.05 * (y.high - y.low), 0.01);
  return {x, {std::max(y.low - margin, 0.0), y.high + margin, y.first, y.last}};
}

}  // namespace

std::string loss_table(const std::vector<LossPoint>& curve) {
  std::string text = "step,epoch,training_loss,training_ratio,validation_loss,validation_ratio\n";
  for (const LossPoint& point : curve) {
    text += concat(point.step, ",", cell(point.epoch));
    for (const TrainingLoss& loss : {point.training, point.validation}) {
      text += concat(",", cell(loss.mean), ",", cell(loss.ratio));
    }
    text += "\n";
  }
  return text;
}

std::string draw_loss_curve(const std::vector<LossPoint>& curve) {
  const std::vector<Point> training = ratios(curve, &LossPoint::training);
  const std::vector<Point> validation = ratios(curve, &LossPoint::validation);
  const auto [x, y] = axes_for(training, validation);
  std::string text =
      concat("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", kWidth, " ", kHeight,
             "\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#1d2127\">\n"
             "<style>.axis{stroke:#5b6470}.grid{stroke:#e3e6ea}.raw{stroke:#9db8dd}"
             ".training{stroke:#2f6db5;stroke-width:2}.validation{stroke:#b3391f;stroke-width:2}</style>\n"
             "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<clipPath id=\"plot\"><rect x=\"",
             x.first, "\" y=\"", y.last, "\" width=\"", x.last - x.first, "\" height=\"", y.first - y.last,
             "\"/></clipPath>\n");
  text += draw_axes(x, y);
  text += "<g clip-path=\"url(#plot)\">\n";
  text += path(training, x, y, "raw");
  text += path(smoothed(training), x, y, "training");
  text += path(validation, x, y, "validation");
  for (const Point& point : validation) {
    text += concat("<circle fill=\"#b3391f\" cx=\"", x(point.x), "\" cy=\"", y(point.y), "\" r=\"3\"/>\n");
  }
  text += "</g>\n";
  text += draw_legend(validation);
  return text += "</svg>\n";
}

void write_loss_curve(const std::filesystem::path& csv, const std::filesystem::path& svg,
                      const std::vector<LossPoint>& curve) {
  write_text(csv, loss_table(curve));
  write_text(svg, draw_loss_curve(curve));
}

}  // namespace cinnabar::registration
