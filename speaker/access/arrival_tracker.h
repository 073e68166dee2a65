// Decides which frames tell of an arrival: the memory of an access plane, as a pure class with injected time.
//
// Threading: none of its own; the access plane's executor.
// Performance: constant time a frame. Memory is bounded whatever the link sends: besides the MNs served it remembers at
// most `max_unknown` stations that were merely heard and as many that are held back; the longest silent is forgotten.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <vector>

#include "absl/container/node_hash_map.h"
#include "common/ipv6.h"
#include "common/link_layer_address.h"
#include "common/time.h"
#include "kedge/v1/mobility.pb.h"

namespace kedge::speaker {

// A station on an access port. Ports are numbered by the access plane and outlive their interface's index.
struct Station {
  std::size_t port = 0;
  LinkLayerAddress link_layer_address;

  bool operator==(const Station&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const Station& s) {
    return H::combine(std::move(h), s.port, s.link_layer_address);
  }
};

class ArrivalTracker {
 public:
  struct Config {
    std::chrono::milliseconds report_interval{100};
    std::chrono::milliseconds overlap_guard{2000};
    std::size_t max_unknown = 4096;
  };

  struct Frame {
    Station station;
    // ROUTER_SOLICITATION, NEIGHBOUR_DISCOVERY or DATA_FRAME.
    v1::Trigger trigger = v1::TRIGGER_UNSPECIFIED;
    // Its link-local address, when the frame shows it.
    std::optional<Ipv6Address> link_local;
    SteadyTime at;
    // Sent to a group: a host that is on two links at once sends it on both.
    bool to_group = false;
  };

  struct Verdict {
    // The frame tells of an arrival.
    bool report = false;
    // The station is served here.
    bool served = false;
    // It is not the first frame of the station that there is a memory of.
    bool heard_before = false;
    Ipv6Address link_local;
    bool link_local_seen = false;
    // It was moved away while it was served here, and its link has not changed since.
    bool link_unchanged = false;
    // It was moved away: it is expected elsewhere, and may be here all the same.
    bool moved_away = false;
    // Until then further data frames of the station tell nothing new and need not be heard.
    std::optional<SteadyTime> data_unneeded_until;
  };

  explicit ArrivalTracker(const Config& config) : config_(config) {}

  Verdict heard(const Frame& frame);
  // What the last verdict said to report was not reported: the next frame may be.
  void unreported(const Station& station);

  // The MN is served on this port from now on, and on no other: what was served on another port is released there.
  void serve(const Station& station, const Ipv6Address& link_local, SteadyTime now);
  // The MN is attached elsewhere: starts the overlap guard on every port where it is known, or on ports 0 to ports - 1
  // when it is known on none; after that, frames to groups bring it back only once the link has changed. Returns the
  // stations concerned.
  std::vector<Station> release(const LinkLayerAddress& mn, std::size_t ports, SteadyTime now);
  // The same on one port, where the MN may have come just now or have left in the moment of the speaker's restart:
  // router solicitations count at once.
  void release_after_restart(const Station& station, SteadyTime now);
  // The MN is gone from here: the next frame is an arrival.
  void depart(const Station& station);
  // No arrival for `pause` by a trigger that is no stronger than what was refused; a router solicitation always is one.
  std::vector<Station> refuse(const LinkLayerAddress& mn, std::chrono::milliseconds pause, SteadyTime now);
  // The link of a port went down: guards and refusals end. Nobody is served there any more.
  void link_changed(std::size_t port);
  // The link of a port came up: whoever is heard there and is not served has come. Returns the stations concerned.
  std::vector<Station> end_guards(std::size_t port);

  // Until when data frames of the station are of no use; nullopt when they are of use now.
  std::optional<SteadyTime> data_unneeded_until(const Station& station, SteadyTime now) const;
  std::optional<SteadyTime> last_heard(const Station& station) const;
  // On any port.
  std::optional<SteadyTime> last_heard(const LinkLayerAddress& mn) const;
  std::size_t size() const { return entries_.size(); }

 private:
  // kServed is bounded by the caller, the others by max_unknown each.
  enum class Kind { kUnknown, kHeldBack, kServed };
  struct Entry {
    Kind kind = Kind::kUnknown;
    std::list<Station>::iterator position;
    std::optional<SteadyTime> last_heard;
    std::optional<Ipv6Address> seen_link_local;
    Ipv6Address served_link_local;
    bool served_link_local_seen = false;
    std::optional<SteadyTime> reported_at;
    int reported_rank = 0;
    bool reported_link_local_seen = false;
    std::optional<SteadyTime> guarded_until;
    bool guarded_from_solicitations = false;
    // It was moved away from here, and the link has not changed since.
    bool moved_away = false;
    // Moreover, it was served here until then: since when the link has been the same is known.
    bool link_unchanged = false;
    std::optional<SteadyTime> refused_until;
    int refused_rank = 0;
  };

  Entry& entry_of(const Station& station);
  // May forget others, never the station itself.
  void set_kind(const Station& station, Entry& entry, Kind kind);
  void move_to(Kind kind, Entry& entry);
  // Forgets the longest silent ones beyond the bound, up to `kept`.
  void trim(Kind kind, const Station& kept);
  void hold_back(const Station& station, Entry& entry, SteadyTime now, bool from_solicitations);
  // What happened before does not count any more.
  static void forget_past(Entry& entry);
  std::list<Station>& list_of(Kind kind) { return lists_[static_cast<std::size_t>(kind)]; }
  bool tells_of_arrival(const Frame& frame, const Entry& entry) const;
  std::vector<Station> stations_of(const LinkLayerAddress& mn) const;

  Config config_;
  std::size_t ports_ = 0;  // one above the highest port seen
  absl::node_hash_map<Station, Entry> entries_;
  std::list<Station> lists_[3];  // by Kind; the last heard in front
};

}  // namespace kedge::speaker
