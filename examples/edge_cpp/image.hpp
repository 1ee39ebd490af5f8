// What LensAI's profiler on devices measures of an image: blue, green, red bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

struct Shape {
  int width;
  int height;
  int channels;  // 3: blue, green, red, interleaved; 1: grey
};

struct Image {
  Shape shape;
  std::vector<std::uint8_t> bytes;  // row by row, the channels of a pixel side by side
};

struct Measures {
  double brightness;          // 0-255
  double sharpness;           // 0-1020
  double noise;               // dB, +inf for an image of one colour
  std::vector<double> means;  // of each channel, blue first
};

// Measures that have a threshold in config.ini, by the names they have there and in file names.
struct Named {
  const char* key;
  const char* name;
  double Measures::*value;
};
constexpr std::array<Named, 3> kMeasures{{{"NOISE", "noise", &Measures::noise},
                                          {"BRIGHTNESS", "brightness", &Measures::brightness},
                                          {"SHARPNESS", "sharpness", &Measures::sharpness}}};

// Throws std::runtime_error unless the file has exactly the bytes that its shape asks for.
Image read_image(const std::string& path, const Shape& shape);

Measures measure(const Image& image);
