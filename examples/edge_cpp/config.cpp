#include "config.hpp"

#include <cmath>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace {

std::string stripped(const std::string& text) {
  const auto from = text.find_first_not_of(" \t\r");
  return from == std::string::npos ? "" : text.substr(from, text.find_last_not_of(" \t\r") - from + 1);
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream rest(text);
  for (std::string part; std::getline(rest, part, ',');) parts.push_back(stripped(part));
  return parts;
}

const std::vector<std::string>& values_of(const Config& config, const std::string& section, const std::string& key) {
  const auto found = config.find(section);
  if (found == config.end() || found->second.count(key) == 0) {
    throw std::runtime_error("[" + section + "] has no " + key);
  }
  return found->second.at(key);
}

double number_of(const std::string& text, const std::string& key) {
  std::istringstream stream(text);
  double number = NAN;
  if (!(stream >> number) || !stream.eof()) throw std::runtime_error(key + " has " + text + ", which is no number");
  return number;
}

std::optional<Range> range_of(const std::vector<std::string>& values, const std::string& key) {
  if (values == std::vector<std::string>{"NaN"}) {
    if (key == "NOISE") throw std::runtime_error("NOISE is NaN, which devices read out of range");
    return std::nullopt;
  }
  if (values.size() != 2) throw std::runtime_error(key + " is neither lower,upper nor NaN");
  const Range range{number_of(values[0], key), number_of(values[1], key)};
  if (range.lower > -1) throw std::runtime_error(key + " has a lower bound above -1: devices would save every image");
  return range;
}

}  // namespace

Config read_config(const std::string& path) {
  std::ifstream file(path);
  Config config;
  std::string section;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    line = stripped(line.substr(0, line.find(';')));
    const auto equals = line.find('=');
    if (line.empty()) continue;
    if (line.front() == '[' && line.back() == ']') {
      section = line.substr(1, line.size() - 2);
    } else if (equals != std::string::npos && equals > 0) {
      config[section][stripped(line.substr(0, equals))] = split(line.substr(equals + 1));
    } else {
      throw std::runtime_error(path + ", line " + std::to_string(number) + ": neither [section] nor key = value");
    }
  }
  if (!file.is_open() || file.bad()) throw std::runtime_error(path + " cannot be read");
  return config;
}

Thresholds thresholds_of(const Config& config) {
  values_of(config, "tracker", "QUATERNION_DRIFT");
  Thresholds thresholds;
  for (const Named& each : kMeasures) thresholds[each.key] = range_of(values_of(config, "image", each.key), each.key);
  return thresholds;
}

std::vector<std::string> outside(const Measures& measures, const Thresholds& thresholds) {
  std::vector<std::string> names;
  for (const Named& each : kMeasures) {
    const std::optional<Range>& range = thresholds.at(each.key);
    const double value = measures.*each.value;
    if (range && (value < range->lower || value > range->upper)) names.emplace_back(each.name);
  }
  return names;
}
