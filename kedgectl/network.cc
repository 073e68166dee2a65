#include "kedgectl/network.h"

#include <vector>

#include "common/ipv6.h"
#include "fmt/format.h"

namespace kedge::kedgectl {

absl::Status check_network(const v1::LmConfig& config) {
  for (const auto& ar : config.access_routers()) {
    const auto wrong = [&](const std::string& what) {
      return absl::InvalidArgumentError(fmt::format("access router {}: {}", ar.name(), what));
    };
    if (!Ipv6Address::parse(ar.locator()).ok()) {
      return wrong(fmt::format("locator \"{}\" is no IPv6 address", ar.locator()));
    }
    for (const auto& sid : {ar.deliver_sid(), ar.uplink_sid()}) {
      if (!sid.empty() && !Ipv6Address::parse(sid).ok())
        return wrong(fmt::format("SID \"{}\" is no IPv6 address", sid));
    }
    for (const auto& pool : ar.pools()) {
      const auto prefix = Ipv6Prefix::parse(pool);
      if (!prefix.ok() || prefix->length() < 48 || prefix->length() > 64) {
        return wrong(fmt::format("pool \"{}\" is no IPv6 prefix of /48 to /64", pool));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<const v1::AccessRouterConfig*> find_access_router(const v1::LmConfig& config, const std::string& name) {
  std::vector<std::string> names;
  for (const auto& ar : config.access_routers()) {
    if (ar.name() == name) return &ar;
    names.push_back(ar.name());
  }
  return absl::NotFoundError(
      fmt::format("access router \"{}\" is unknown; the configuration has {}", name, fmt::join(names, ", ")));
}

}  // namespace kedge::kedgectl
