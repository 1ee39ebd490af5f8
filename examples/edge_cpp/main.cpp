// LensAI sketches without Python: reads the files of a baseline, makes those of a device. See README.md.
#include <charconv>
#include <iomanip>
#include <iostream>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "config.hpp"
#include "image.hpp"
#include "sketches.hpp"

namespace {

const std::vector<double> kRanks{0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99};
constexpr int kLargestSide = 65535;
constexpr const char* kUsage =
    "usage: lensai_edge quantiles FILE.bin... | "
    "lensai_edge sketch --width W --height H --channels 1|3 --out DIR [--merge] IMAGE... | "
    "lensai_edge check --width W --height H --channels 1|3 --config CONFIG.ini IMAGE...";

struct Arguments {
  std::map<std::string, std::string> options;
  std::vector<std::string> files;
};

Arguments parsed(const std::vector<std::string>& words) {
  Arguments arguments;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i].rfind("--", 0) != 0) {
      arguments.files.push_back(words[i]);
    } else if (words[i] == "--merge") {
      arguments.options[words[i]] = "";
    } else if (i + 1 < words.size()) {
      arguments.options[words[i]] = words[i + 1];
      ++i;
    } else {
      throw std::runtime_error(words[i] + " needs a value; " + kUsage);
    }
  }
  if (arguments.files.empty()) throw std::runtime_error(std::string("no files are given; ") + kUsage);
  return arguments;
}

// Takes an option out, so that what is left is unknown.
std::string taken(Arguments& arguments, const std::string& name) {
  const auto node = arguments.options.extract(name);
  if (node.empty()) throw std::runtime_error(name + " is not given; " + kUsage);
  return node.mapped();
}

int taken_number(Arguments& arguments, const std::string& name) {
  const std::string text = taken(arguments, name);
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 1 || number > kLargestSide) {
    throw std::runtime_error(name + " is " + text + ", and not a whole number from 1 to " +
                             std::to_string(kLargestSide));
  }
  return number;
}

Shape taken_shape(Arguments& arguments) {
  const Shape shape{taken_number(arguments, "--width"), taken_number(arguments, "--height"),
                    taken_number(arguments, "--channels")};
  if (shape.channels != 1 && shape.channels != 3) {
    throw std::runtime_error("--channels is " + std::to_string(shape.channels) + ", and neither 1 nor 3");
  }
  return shape;
}

void check_nothing_left(const Arguments& arguments) {
  if (!arguments.options.empty()) {
    throw std::runtime_error(arguments.options.begin()->first + " is not known here; " + kUsage);
  }
}

void print_quantiles(const Arguments& arguments) {
  check_nothing_left(arguments);
  std::cout << "file\tn\tmin";
  for (const double rank : kRanks) std::cout << "\t" << rank;
  std::cout << "\tmax\n" << std::setprecision(std::numeric_limits<float>::max_digits10);
  for (const std::string& path : arguments.files) {
    const Summary summary = summary_of(path, kRanks);
    std::cout << path << "\t" << summary.n << "\t" << summary.min;
    for (const float quantile : summary.quantiles) std::cout << "\t" << quantile;
    std::cout << "\t" << summary.max << "\n";
  }
}

void sketch_images(Arguments& arguments) {
  const Shape shape = taken_shape(arguments);
  const std::filesystem::path folder = std::filesystem::path(taken(arguments, "--out")) / "imgstats";
  const bool merges = arguments.options.erase("--merge") > 0;
  check_nothing_left(arguments);
  write_sketches(arguments.files, shape, folder, merges);
}

void check_images(Arguments& arguments) {
  const Shape shape = taken_shape(arguments);
  const Thresholds thresholds = thresholds_of(read_config(taken(arguments, "--config")));
  check_nothing_left(arguments);
  std::cout << "file\tsaved\toutside\n";
  for (const std::string& path : arguments.files) {
    const std::vector<std::string> names = outside(measure(read_image(path, shape)), thresholds);
    std::cout << path << "\t" << (names.empty() ? "no" : "yes") << "\t";
    for (std::size_t i = 0; i < names.size(); ++i) std::cout << (i == 0 ? "" : ",") << names[i];
    std::cout << "\n";
  }
}

void run(const std::vector<std::string>& words) {
  if (words.empty()) throw std::runtime_error(kUsage);
  Arguments arguments = parsed({words.begin() + 1, words.end()});
  if (words[0] == "quantiles") {
    print_quantiles(arguments);
  } else if (words[0] == "sketch") {
    sketch_images(arguments);
  } else if (words[0] == "check") {
    check_images(arguments);
  } else {
    throw std::runtime_error(words[0] + " is not known; " + kUsage);
  }
  if (!std::cout.flush()) throw std::runtime_error("the output cannot be written");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run({argv + 1, argv + argc});
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "lensai_edge: " << error.what() << "\n";
    return 2;
  }
}
