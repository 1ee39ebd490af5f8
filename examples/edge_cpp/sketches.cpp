#include "sketches.hpp"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <list>
#include <map>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#include <kll_sketch.hpp>
#include <unistd.h>

namespace fs = std::filesystem;

namespace {

using Sketch = datasketches::kll_sketch<float>;
using Sketches = std::map<std::string, Sketch>;  // by name of file

// The k of devices: rank error 1.33% at 99% confidence.
constexpr std::uint16_t kK = 200;

template <typename T>
T number_at(const std::vector<char>& bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

// The library believes the levels that a file states, and reads past its end where they are wrong. So they are checked
// first: they ascend, and their items with a weight of 2^level are the n values that the sketch says it has seen.
bool has_sound_levels(const std::vector<char>& bytes) {
  constexpr std::size_t header = 20;
  constexpr unsigned char empty_or_single = 1 | 4;
  if (bytes.size() < 8) return false;
  if (number_at<unsigned char>(bytes, 3) & empty_or_single) return true;  // then there are no levels
  if (bytes.size() < header) return false;
  const std::size_t levels = number_at<std::uint8_t>(bytes, 18);
  const std::size_t items_at = header + 4 * levels + 2 * sizeof(float);  // after the minimum and the maximum
  if (levels == 0 || levels > 60 || bytes.size() < items_at) return false;
  std::uint64_t seen = 0;
  for (std::size_t level = 0; level < levels; ++level) {
    const std::uint64_t from = number_at<std::uint32_t>(bytes, header + 4 * level);
    const std::uint64_t to = level + 1 < levels
                                 ? number_at<std::uint32_t>(bytes, header + 4 * (level + 1))
                                 : number_at<std::uint32_t>(bytes, header) + (bytes.size() - items_at) / sizeof(float);
    if (to < from || to - from > bytes.size()) return false;
    seen += (to - from) << level;
  }
  return seen == number_at<std::uint64_t>(bytes, 8);
}

std::vector<char> read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open() || !fs::is_regular_file(path)) throw std::runtime_error(path.string() + " cannot be read");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void check_values(const Sketch& sketch) {
  if (sketch.is_empty()) throw std::runtime_error("it has seen no values");
  bool is_nan = std::isnan(sketch.get_min_item()) || std::isnan(sketch.get_max_item());
  for (const auto& item : sketch) is_nan = is_nan || std::isnan(item.first);
  if (is_nan) throw std::runtime_error("it holds NaN");
}

// A file under a name of its own, which becomes `path` or is gone.
class Partial {
 public:
  Partial(fs::path path, const Sketch& sketch) : path_(std::move(path)), partial_(path_) {
    partial_.replace_filename("." + path_.filename().string() + "." + std::to_string(::getpid()) + ".partial");
    const auto bytes = sketch.serialize();
    std::FILE* file = std::fopen(partial_.c_str(), "wb");
    bool written = file != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size() &&
                   std::fflush(file) == 0 && ::fsync(::fileno(file)) == 0;
    const int reason = errno;
    written = file != nullptr && std::fclose(file) == 0 && written;
    if (!written) {
      std::remove(partial_.c_str());
      throw std::runtime_error(path_.string() + " was not written: " + std::generic_category().message(reason));
    }
  }
  Partial(const Partial&) = delete;
  Partial& operator=(const Partial&) = delete;
  ~Partial() {
    std::error_code ignored;
    fs::remove(partial_, ignored);
  }

  void publish() const { fs::rename(partial_, path_); }

 private:
  fs::path path_;
  fs::path partial_;
};

Sketch load(const fs::path& path) {
  const std::vector<char> bytes = read_bytes(path);
  try {
    if (!has_sound_levels(bytes)) throw std::runtime_error("truncated or damaged");
    Sketch sketch = Sketch::deserialize(bytes.data(), bytes.size());
    check_values(sketch);
    return sketch;
  } catch (const std::exception& error) {
    throw std::runtime_error(path.string() + " is no sketch that can be used: " + error.what());
  }
}

void add(const Image& image, Sketches& sketches) {
  const auto named = [&](const std::string& name) -> Sketch& { return sketches.try_emplace(name, kK).first->second; };
  const Measures measured = measure(image);
  for (const Named& each : kMeasures) named(each.name).update(static_cast<float>(measured.*each.value));
  const std::size_t channels = measured.means.size();
  for (std::size_t channel = 0; channel < channels; ++channel) {
    named("mean_" + std::to_string(channel)).update(static_cast<float>(measured.means[channel]));
    Sketch& pixels = named("pixel_" + std::to_string(channel));
    for (std::size_t i = channel; i < image.bytes.size(); i += channels) pixels.update(image.bytes[i]);
  }
}

void save(const Sketches& sketches, const fs::path& folder) {
  fs::create_directories(folder);
  std::list<Partial> files;
  for (const auto& [name, sketch] : sketches) files.emplace_back(folder / (name + ".bin"), sketch);
  for (const Partial& file : files) file.publish();
}

}  // namespace

Summary summary_of(const fs::path& file, const std::vector<double>& ranks) {
  const Sketch sketch = load(file);
  std::vector<float> quantiles;
  for (const double rank : ranks) quantiles.push_back(sketch.get_quantile(rank));
  return {sketch.get_n(), sketch.get_min_item(), quantiles, sketch.get_max_item()};
}

void write_sketches(const std::vector<std::string>& images, const Shape& shape, const fs::path& folder, bool merges) {
  Sketches sketches;
  for (const std::string& image : images) add(read_image(image, shape), sketches);
  for (auto& [name, sketch] : sketches) {
    const fs::path path = folder / (name + ".bin");
    if (merges && fs::exists(path)) sketch.merge(load(path));
  }
  save(sketches, folder);
}
