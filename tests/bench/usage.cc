#include "tests/bench/usage.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace kedge::bench {
namespace {

double seconds(std::uint64_t ticks) { return static_cast<double>(ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK)); }

// The numbers of a file's first line, behind the last `after` if there is one.
std::vector<std::uint64_t> numbers(const std::string& path, char after) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  std::vector<std::uint64_t> found;
  for (const auto& word : absl::StrSplit(line.substr(line.rfind(after) + 1), ' ', absl::SkipEmpty())) {
    // Letters are a state; what is negative is not asked for.
    std::uint64_t number = 0;
    found.push_back(absl::SimpleAtoi(word, &number) ? number : 0);
  }
  return found;
}

// proc(5): utime and stime are the 12th and 13th behind the name.
double time_of(const std::string& folder) {
  const auto fields = numbers(absl::StrCat(folder, "/stat"), ')');
  return fields.size() > 12 ? seconds(fields[11] + fields[12]) : 0;
}

}  // namespace

CpuTime cpu_time(const std::string& pid) {
  const std::string folder = absl::StrCat("/proc/", pid);
  CpuTime time{time_of(folder), {}};
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator(absl::StrCat(folder, "/task"), error)) {
    time.threads.emplace(thread.path().filename().string(), time_of(thread.path().string()));
  }
  return time;
}

double busiest_thread(const CpuTime& begin, const CpuTime& end) {
  double most = 0;
  for (const auto& [thread, used] : end.threads) {
    const auto before = begin.threads.find(thread);
    most = std::max(most, used - (before == begin.threads.end() ? 0 : before->second));
  }
  return most;
}

MachineTime machine_time() {
  // user, nice, system, idle, iowait, irq, softirq, steal.
  const auto fields = numbers("/proc/stat", 'u');
  if (fields.size() < 8) return {};
  return {seconds(fields[3]), seconds(fields[4]), seconds(fields[7])};
}

std::uint64_t disk_flushes(const std::string& disk) {
  const auto fields = numbers(absl::StrCat("/sys/class/block/", disk, "/stat"), '\0');
  return fields.size() > 15 ? fields[15] : 0;
}

}  // namespace kedge::bench
