// What the kernel counts of CPUs and disk: of a process, its threads, and the machine. Zero where it does not tell.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace kedge::bench {

// Seconds of user and system since each of them has started, in steps of the kernel's tick (10 ms).
struct CpuTime {
  double process = 0;
  std::map<std::string, double> threads;
};

// `pid`: a number, or "self".
CpuTime cpu_time(const std::string& pid);

// What the thread that has used most since `begin` has used.
double busiest_thread(const CpuTime& begin, const CpuTime& end);

// Seconds, of all CPUs together, since the machine has started.
struct MachineTime {
  double idle = 0;
  // Idle, while something waited for the disk.
  double iowait = 0;
  // Taken by the host of a virtual machine.
  double steal = 0;
};

MachineTime machine_time();

// How often a disk, "vda", was told to make durable what has been written to it; what is told it at a time counts once.
std::uint64_t disk_flushes(const std::string& disk);

}  // namespace kedge::bench
