// When this AR has forwarded the last packet from an access interface with a source inside of a prefix, or to one with
// such a destination: the kernel's own record, which outlives the speaker.
//
// What is only between the MN and the AR itself does not count, in particular neighbour discovery and probes: it is not
// forwarded.
//
// Threading: all calls on the speaker's executor; they block for as long as the kernel takes.
// Performance: a packet of a watched prefix costs two lookups in a hash, another one on an access interface one. With
// 10,000 prefixes, all used, read() takes about 40 ms, of one 0.03 ms; the first replace_all() about 100 ms, change()
// of one 0.1 to 0.3 ms.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/ipv6.h"

namespace kedge::speaker {

class ActivityMeter {
 public:
  struct Reading {
    // Since the last packet; 0 or more.
    std::chrono::milliseconds age{};
    // There was none since the prefix is watched, for `age`.
    bool unused = false;

    bool operator==(const Reading&) const = default;
  };

  virtual ~ActivityMeter() = default;

  // Watches these and no others. What has been seen of those that were watched before, also by an earlier run of the
  // speaker, stays known. Each is a /64.
  virtual absl::Status replace_all(const std::set<Ipv6Prefix>& prefixes) = 0;
  // Both or, on error, neither. What was seen of those that are removed is forgotten. Not OK when somebody else has
  // taken away what was there: replace_all() puts it right.
  virtual absl::Status change(const std::vector<Ipv6Prefix>& added, const std::vector<Ipv6Prefix>& removed) = 0;
  // Of all that are watched. NotFound when somebody has taken away what was there, or a part of it.
  virtual absl::StatusOr<std::map<Ipv6Prefix, Reading>> read() = 0;
  // nullopt: not watched. NotFound as above.
  virtual absl::StatusOr<std::optional<Reading>> read(const Ipv6Prefix& prefix) = 0;
};

struct ActivityMeterConfig {
  // Of the access links.
  std::vector<std::string> interfaces;
};

// As a table of nftables, which is there only while something is watched or was since the last replace_all(), and stays
// when this object goes. InvalidArgument: an interface's name cannot be written for nft.
absl::StatusOr<std::unique_ptr<ActivityMeter>> make_activity_meter(const ActivityMeterConfig& config);

// Removes it. OK when there is none.
absl::Status remove_activity_meter();

}  // namespace kedge::speaker
