// KLL sketches in files, as LensAI's devices and lensai_integrations.edge have them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "image.hpp"

struct Summary {
  std::uint64_t n;
  float min;
  std::vector<float> quantiles;
  float max;
};

// What a file's sketch says of some ranks, fractions. Throws std::runtime_error unless the file is a whole sketch of
// numbers that has seen a value.
Summary summary_of(const std::filesystem::path& file, const std::vector<double>& ranks);

// Sketches the measures and the pixels of images into noise.bin, brightness.bin, sharpness.bin, mean_0.bin, pixel_0.bin
// and so on. Each file appears whole or not at all, and none before all of them are on the disk.
//   merges: adds what the folder's files of these names hold; otherwise they are replaced.
void write_sketches(const std::vector<std::string>& images, const Shape& shape, const std::filesystem::path& folder,
                    bool merges);
