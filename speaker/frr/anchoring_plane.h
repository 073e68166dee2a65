// The AR's anchoring plane (RFC 8818: FM-CP): what FRR announces, and what its bgpd has come to prefer.
//
// Threading: all calls and callbacks on the speaker's executor; nothing here blocks.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "boost/asio/any_io_executor.hpp"
#include "common/ipv6.h"

namespace kedge::speaker {

// Injects prefixes into FRR and withdraws them, at a level of preference each.
class RouteInjector {
 public:
  enum class State {
    // FRR cannot be reached.
    kAwaiting,
    // Reading what FRR holds and driving it to what is desired.
    kSyncing,
    // FRR holds what is desired, but for commits in flight.
    kSynced,
  };

  virtual ~RouteInjector() = default;

  // level 1.. : a blackhole route of that level; 0: none. The desire is kept until it is met, over restarts of FRR.
  // Each call is answered by on_committed, unless a later one for the same prefix comes before that. A route of the
  // operator for the same prefix is never touched: on_state names it, and the desire waits until it is gone.
  virtual void set(const Ipv6Prefix& prefix, std::uint32_t level) = 0;
  // Takes `levels` as all that is desired; routes of ours for any other prefix are removed, leftovers of an earlier run
  // included. Nothing is written before the first call.
  virtual void replace_all(const std::map<Ipv6Prefix, std::uint32_t>& levels) = 0;

  // The LM's configuration has come to know more levels: those up to `levels` are ours, too, from the next
  // replace_all() on. Fewer change nothing: what was announced at the others has still to be withdrawn.
  virtual void raise_levels(std::uint32_t levels) = 0;

  virtual State state() const = 0;
  virtual std::string frr_version() const = 0;

  // FRR has committed `level` for the prefix (0: the removal); also called when a full resync finds it already so. FRR
  // has it then, but zebra and bgpd have yet to act on it.
  std::function<void(const Ipv6Prefix&, std::uint32_t level)> on_committed;
  // A round of changes that went into FRR together: how long it took, and how many they were.
  std::function<void(std::chrono::duration<double>, std::size_t changes)> on_round;
  // Called when either changes. Text: "synced", or what is wrong and what to do.
  std::function<void(State, const std::string&)> on_state;
};

struct RouteInjectorConfig {
  // A loopback address: FRR's gRPC has no TLS. With another one the injector stays in kAwaiting and says why.
  std::string northbound = "127.0.0.1:50051";
  // Highest tag that is ours; tags 1 to this. Until raise_levels().
  std::uint32_t levels = 8;
  // How often, while idle, FRR's statics are read and compared with what is desired; less often when that takes more
  // than 1/200 of the time.
  std::chrono::milliseconds audit_interval{30'000};
  // The same while a prefix cannot be had; 1/20 of the time.
  std::chrono::milliseconds repair_interval{5'000};
};

// Through FRR's northbound: blackhole statics, whose tag is the level. One writer, at most one commit in flight, all
// that waited goes into the next; a fresh candidate each time, phase ALL, no deadlines. A change costs as much as FRR's
// statics are many.
std::unique_ptr<RouteInjector> make_northbound_injector(boost::asio::any_io_executor executor,
                                                        const RouteInjectorConfig& config);

struct KernelInjectorConfig {
  // Where zebra's vty socket is.
  std::string vty_directory = "/var/run/frr";
  // rtm_protocol of our routes; all with this number in the table main are ours.
  std::uint8_t protocol = 89;
  // Until raise_levels().
  std::uint32_t levels = 8;
  // So long after changes, zebra is asked once how many routes it has.
  std::chrono::milliseconds audit_interval{30'000};
  // How often it is tried again while the kernel refuses a route.
  std::chrono::milliseconds repair_interval{5'000};
};

// Through the kernel: blackhole routes of the table main, whose metric is kernel_metric(level), and which zebra reads
// and redistributes. Not more at a time than zebra can read; what zebra has missed is told again. A change costs the
// same however many routes there are.
std::unique_ptr<RouteInjector> make_kernel_injector(boost::asio::any_io_executor executor,
                                                    const KernelInjectorConfig& config);

// Asks this AR's own bgpd over its vty socket for the best path, woken by the kernel's route notices and, since those
// may be lost or never come (an own static hides BGP's route), at growing intervals with a bound.
class BestPathObserver {
 public:
  virtual ~BestPathObserver() = default;

  // Calls `on_superseded` once when bgpd's best path for the prefix has the next hop `successor` and a local preference
  // of at least `local_preference`. A second watch of the same prefix replaces the first.
  virtual void watch(const Ipv6Prefix& prefix, const Ipv6Address& successor, std::uint32_t local_preference) = 0;
  virtual void unwatch(const Ipv6Prefix& prefix) = 0;

  // Calls `on_withdrawn` once when no router has a route to this AR for the prefix from its bgpd any more, but for what
  // is under way: bgpd has no path of its own with a tag of 1 to `levels`, and all its neighbours know. A bgpd that
  // cannot be asked counts as one without, after `stale_time`; one that has such a path, however long, does not. A
  // second call for the same prefix replaces the first. Independent of watch().
  virtual void await_withdrawal(const Ipv6Prefix& prefix, std::uint32_t levels) = 0;
  virtual void forget_withdrawal(const Ipv6Prefix& prefix) = 0;

  std::function<void(const Ipv6Prefix&)> on_superseded;
  std::function<void(const Ipv6Prefix&)> on_withdrawn;
  // OK, or why bgpd cannot be asked, or what it announces and should not, and what to do.
  std::function<void(const absl::Status&)> on_health;
};

struct BestPathObserverConfig {
  std::string vty_directory = "/var/run/frr";
  // After so long, none of bgpd's neighbours keeps a route of a session that is gone: their stalepath-time.
  std::chrono::milliseconds stale_time{10'000};
};

std::unique_ptr<BestPathObserver> make_bgpd_observer(boost::asio::any_io_executor executor,
                                                     const BestPathObserverConfig& config);

}  // namespace kedge::speaker
