// An access plane on which nothing happens but what a test makes happen.
#pragma once

#include "speaker/access/access_plane.h"

namespace kedge::speaker::testing {

class IdleAccessPlane : public AccessPlane {
 public:
  void serve(const LinkLayerAddress&, const Ipv6Address&, const std::string&,
             const std::vector<AdvertisedPrefix>&) override {}
  void release(const LinkLayerAddress&) override {}
  void release_after_restart(const LinkLayerAddress&) override {}
  void refuse(const LinkLayerAddress&, std::chrono::milliseconds) override {}
  std::optional<SteadyTime> last_heard(const LinkLayerAddress&) const override { return std::nullopt; }
  void probe(const LinkLayerAddress&, const Ipv6Address&, const std::string&, std::function<void(bool)>) override {}
};

}  // namespace kedge::speaker::testing
