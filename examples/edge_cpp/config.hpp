// A device's config.ini: which images are worth saving.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "image.hpp"

// Sections, keys, and values split at commas; a semicolon begins a comment.
using Config = std::map<std::string, std::map<std::string, std::vector<std::string>>>;

struct Range {
  double lower;
  double upper;
};

// Thresholds of the image measures by key; none where the file says NaN: compute only.
using Thresholds = std::map<std::string, std::optional<Range>>;

// Throws std::runtime_error if a line is neither a section, a `key = value`, a comment nor empty.
Config read_config(const std::string& path);

// Throws std::runtime_error for what devices stumble over: an image range whose lower bound is above -1, which makes
// them save every image, NaN for NOISE, and a missing QUATERNION_DRIFT.
Thresholds thresholds_of(const Config& config);

// Names of the measures that are outside their range, each a reason to save the image.
std::vector<std::string> outside(const Measures& measures, const Thresholds& thresholds);
