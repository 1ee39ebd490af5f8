#include "image.hpp"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <stdexcept>

namespace {

struct Spread {
  double mean;
  double std;  // of the population
};

// Sums of integers are exact, so the spread of equal values is exactly 0.
Spread spread(const std::vector<int>& values) {
  std::int64_t sum = 0;
  for (const int value : values) sum += value;
  const double count = static_cast<double>(values.size());
  const double mean = static_cast<double>(sum) / count;
  double squares = 0;
  for (const int value : values) squares += (value - mean) * (value - mean);
  return {mean, std::sqrt(squares / count)};
}

// OpenCV's BGR2GRAY of bytes: 0.114, 0.587 and 0.299 in 15-bit fixed point, rounded.
std::vector<int> gray_of(const Image& image) {
  if (image.shape.channels == 1) return {image.bytes.begin(), image.bytes.end()};
  std::vector<int> gray(image.bytes.size() / 3);
  const std::uint8_t* pixel = image.bytes.data();
  for (int& value : gray) {
    value = (3735 * pixel[0] + 19235 * pixel[1] + 9798 * pixel[2] + (1 << 14)) >> 15;
    pixel += 3;
  }
  return gray;
}

// OpenCV's border reflect-101: the pixel beyond the edge is the one before it, and a line of one pixel is its own.
int reflected(int i, int size) {
  if (size == 1) return 0;
  return i < 0 ? -i : i >= size ? 2 * (size - 1) - i : i;
}

// The 4-neighbour Laplacian [0 1 0; 1 -4 1; 0 1 0].
std::vector<int> laplacian_of(const std::vector<int>& gray, const Shape& shape) {
  const auto at = [&](int y, int x) { return gray[static_cast<std::size_t>(y) * shape.width + x]; };
  std::vector<int> laplacian;
  laplacian.reserve(gray.size());
  for (int y = 0; y < shape.height; ++y) {
    const int above = reflected(y - 1, shape.height);
    const int below = reflected(y + 1, shape.height);
    for (int x = 0; x < shape.width; ++x) {
      const int sides = at(y, reflected(x - 1, shape.width)) + at(y, reflected(x + 1, shape.width));
      laplacian.push_back(at(above, x) + at(below, x) + sides - 4 * at(y, x));
    }
  }
  return laplacian;
}

std::vector<double> means_of(const Image& image) {
  const std::size_t channels = image.shape.channels;
  std::vector<std::int64_t> sums(channels, 0);
  for (std::size_t i = 0; i < image.bytes.size(); ++i) sums[i % channels] += image.bytes[i];
  std::vector<double> means;
  for (const std::int64_t sum : sums) {
    means.push_back(static_cast<double>(sum) / static_cast<double>(image.bytes.size() / channels));
  }
  return means;
}

// Red's weight on blue and blue's on red, as devices have it: only so do the numbers compare.
double brightness_of(const std::vector<double>& means) {
  return means.size() == 3 ? 0.299 * means[0] + 0.587 * means[1] + 0.114 * means[2] : means[0];
}

double noise_of(const Spread& gray) {
  if (gray.std == 0) return std::numeric_limits<double>::infinity();
  return 20 * std::log10(gray.mean / gray.std + 1e-7);
}

}  // namespace

Image read_image(const std::string& path, const Shape& shape) {
  const std::size_t wanted = static_cast<std::size_t>(shape.width) * shape.height * shape.channels;
  Image image{shape, std::vector<std::uint8_t>(wanted + 1)};  // one byte more shows a file that is too long
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(image.bytes.data()), static_cast<std::streamsize>(image.bytes.size()));
  if (!file.is_open() || file.bad()) throw std::runtime_error(path + " cannot be read");
  const auto size = static_cast<std::size_t>(file.gcount());
  if (size != wanted) {
    throw std::runtime_error(path + " has " + (size > wanted ? "more than " : "") +
                             std::to_string(size > wanted ? wanted : size) + " bytes, and an image of " +
                             std::to_string(shape.width) + " x " + std::to_string(shape.height) + " x " +
                             std::to_string(shape.channels) + " has " + std::to_string(wanted));
  }
  image.bytes.pop_back();
  return image;
}

Measures measure(const Image& image) {
  const std::vector<int> gray = gray_of(image);
  const std::vector<double> means = means_of(image);
  return {brightness_of(means), spread(laplacian_of(gray, image.shape)).std, noise_of(spread(gray)), means};
}
