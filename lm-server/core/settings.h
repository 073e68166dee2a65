// The server's configuration after its defaults have been filled in and its meaning has been checked.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ipv6.h"
#include "common/recovery.h"
#include "kedge/v1/config.pb.h"
#include "kedge/v1/types.pb.h"
#include "lm-server/core/limits.h"

namespace kedge::lm {

struct AccessRouter {
  v1::NodeInfo info;
  std::vector<Ipv6Prefix> pools;
};

struct Settings {
  std::vector<AccessRouter> access_routers;
  v1::Mode mode = v1::MODE_RELOCATE;
  std::chrono::nanoseconds detach_grace = std::chrono::seconds(10);
  std::chrono::nanoseconds redirect_hold = std::chrono::seconds(1);
  std::uint32_t max_prefixes_per_mn = 8;
  std::uint32_t preference_levels = 8;
  // Unspecified: as the mode says.
  v1::PrefixType prefix_type = v1::PREFIX_TYPE_UNSPECIFIED;
  bool serve_unknown = true;
  bool require_authentication = false;
  bool direct_uplink = false;
  std::chrono::nanoseconds relocate_after{};
  std::chrono::nanoseconds replacement_time = std::chrono::minutes(2);
  std::uint32_t flap_moves = 5;
  // 0: no flap rule.
  std::chrono::nanoseconds flap_window = std::chrono::minutes(3);
  std::chrono::nanoseconds prefix_quarantine = std::chrono::hours(2);
  // 0: no prefix ends for being idle.
  std::chrono::nanoseconds idle_after = std::chrono::minutes(124);
  std::uint32_t new_nodes = 1000;
  // 0: no limit.
  std::chrono::nanoseconds new_nodes_window = std::chrono::minutes(10);
  ServerLimits limits;
  // Not configurable.
  std::chrono::nanoseconds recovery_time = kRecoveryTime;
};

// Sets every optional field that is absent to its documented default.
void apply_defaults(v1::LmConfig& config);

// Checks what types cannot: ranges, names, addresses, overlaps. `config` has its defaults. InvalidArgument:
// "<file>: <key>: what is wrong; what to do".
absl::StatusOr<Settings> make_settings(const v1::LmConfig& config, std::string_view file);

}  // namespace kedge::lm
