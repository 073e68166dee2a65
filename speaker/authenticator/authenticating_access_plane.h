// An access plane that knows for which stations an authenticator vouches, around the one that hears them.
//
// A station that is vouched for after it was heard arrives once more, since the LM may have refused it meanwhile. One
// that is not vouched for any more departs.
//
// Threading: everything on the speaker's executor.
// Standards: RFC 8818, 5 (authentication and authorization where traffic is redirected); IEEE 802.1X is the usual
// source.
#pragma once

#include <chrono>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "boost/asio/any_io_executor.hpp"
#include "boost/asio/steady_timer.hpp"
#include "speaker/access/access_plane.h"

namespace kedge::speaker {

class AuthenticatingAccessPlane final : public AccessPlane {
 public:
  struct Station {
    std::string interface;
    LinkLayerAddress link_layer_address;

    auto operator<=>(const Station&) const = default;
  };
  struct Vouched {
    Station station;
    std::string identity;
    // Empty: no end.
    std::optional<SteadyTime> until;
  };

  static constexpr std::size_t kMostVouched = 65536;
  // Heard without being vouched for; the longest silent is forgotten.
  static constexpr std::size_t kMostWaiting = 4096;

  // `interfaces`: those of the access links.
  AuthenticatingAccessPlane(boost::asio::any_io_executor executor, std::vector<std::string> interfaces,
                            std::unique_ptr<AccessPlane> inner);
  ~AuthenticatingAccessPlane() override;

  // NotFound: no such access interface; ResourceExhausted.
  absl::Status authorize(const Station& station, std::string identity,
                         std::optional<std::chrono::steady_clock::duration> valid_for);
  // NotFound: no such access interface.
  absl::Status revoke(const Station& station);
  std::vector<Vouched> vouched() const;

  void serve(const LinkLayerAddress& mn, const Ipv6Address& link_local, const std::string& interface,
             const std::vector<AdvertisedPrefix>& prefixes) override;
  void release(const LinkLayerAddress& mn) override;
  void release_after_restart(const LinkLayerAddress& mn) override;
  void refuse(const LinkLayerAddress& mn, std::chrono::milliseconds pause) override;
  std::optional<SteadyTime> last_heard(const LinkLayerAddress& mn) const override;
  std::optional<SteadyTime> last_heard_on(const std::string& interface, const LinkLayerAddress& mn) const override;
  void probe(const LinkLayerAddress& mn, const Ipv6Address& link_local, const std::string& interface,
             std::function<void(bool)> answered) override;
  bool authenticated(const LinkLayerAddress& mn, const std::string& interface) const override;
  AccessCounters counters() const override;

 private:
  struct Trust {
    std::string identity;
    std::optional<SteadyTime> until;
  };

  absl::Status check_interface(const Station& station) const;
  void heard(const Arrival& arrival);
  bool vouched_for_anywhere(const LinkLayerAddress& mn) const;
  void forget_waiting(const Station& station);
  // No longer vouched for.
  void end(const Station& station);
  void arm();

  std::set<std::string> interfaces_;
  std::unique_ptr<AccessPlane> inner_;
  std::map<Station, Trust> trusted_;
  std::set<std::pair<SteadyTime, Station>> ends_;
  std::list<Arrival> waiting_;  // the last heard in front
  std::map<Station, std::list<Arrival>::iterator> waiting_by_station_;
  // Where each MN is served.
  std::map<LinkLayerAddress, std::string> served_;
  boost::asio::steady_timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace kedge::speaker
