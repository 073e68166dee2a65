// An access link: frames of any kind in any order, and what the LM decides meanwhile. What is remembered of stations
// stays bounded, and nobody is served twice.
#include <set>

#include "speaker/access/arrival_tracker.h"
#include "speaker/access/frame_classifier.h"
#include "speaker/access/icmpv6_codec.h"
#include "tests/fuzz/input.h"

namespace {

using kedge::Ipv6Address;
using kedge::LinkLayerAddress;
using kedge::fuzz::Input;
using kedge::fuzz::require;
using kedge::speaker::ArrivalTracker;
using kedge::speaker::Station;
using std::chrono::milliseconds;

constexpr std::size_t kMostUnknown = 3;
constexpr std::size_t kPorts = 2;
const LinkLayerAddress kRouter(LinkLayerAddress::Bytes{0x02, 0, 0, 0, 0, 0x01});

class Link {
 public:
  void step(Input& in) {
    now_ += milliseconds(in.u8() * 16);
    switch (in.below(9)) {
      case 0:
      case 1:
        frame(in);
        break;
      case 2: {
        const Station served = station(in);
        tracker_.serve(served, kedge::speaker::eui64_link_local(served.link_layer_address), now_);
        for (std::size_t port = 0; port < kPorts; ++port) served_.erase({port, served.link_layer_address});
        served_.insert({served.port, served.link_layer_address});
        break;
      }
      case 3: {
        const LinkLayerAddress mn = station(in).link_layer_address;
        for (const auto& released : tracker_.release(mn, kPorts, now_)) leave(released);
        break;
      }
      case 4: {
        const Station held = station(in);
        tracker_.release_after_restart(held, now_);
        leave(held);
        break;
      }
      case 5: {
        const Station gone = station(in);
        tracker_.depart(gone);
        leave(gone);
        break;
      }
      case 6:
        for (const auto& refused : tracker_.refuse(station(in).link_layer_address, milliseconds(in.u16()), now_)) {
          require(!is_served(refused), "nobody who is served is refused");
        }
        break;
      case 7: {
        const std::size_t port = in.below(kPorts);
        tracker_.link_changed(port);
        std::erase_if(served_, [port](const auto& served) { return served.first == port; });
        break;
      }
      case 8:
        for (const auto& freed : tracker_.end_guards(in.below(kPorts))) {
          require(!is_served(freed), "who is served has no guard");
        }
        break;
    }
    require(tracker_.size() <= served_.size() + 2 * kMostUnknown, "what is remembered is bounded");
  }

 private:
  static Station station(Input& in) {
    const std::uint8_t number = in.u8();
    return {number % kPorts, LinkLayerAddress(LinkLayerAddress::Bytes{0x02, 0, 0, 0, 0, number})};
  }
  bool is_served(const Station& s) const { return served_.contains({s.port, s.link_layer_address}); }
  void leave(const Station& s) { served_.erase({s.port, s.link_layer_address}); }

  void frame(Input& in) {
    const std::size_t port = in.below(kPorts);
    const auto bytes = in.bytes(in.u8());
    // A copy of its own, so that a read past its end shows.
    const std::vector<std::uint8_t> frame(bytes.begin(), bytes.end());
    auto heard = kedge::speaker::classify_frame(frame, kRouter);
    if (!heard.ok()) {
      require(frame.size() >= 14, "what is malformed has a sender");
      return;
    }
    if (!heard->has_value()) return;
    ArrivalTracker::Frame& told = **heard;
    require(!told.station.link_layer_address.is_multicast() && told.station.link_layer_address != kRouter,
            "a station is somebody else");
    require(!told.link_local || told.link_local->is_link_local(), "a link-local address is one");
    told.station.port = port;
    told.at = now_;
    const auto verdict = tracker_.heard(told);
    require(verdict.served == is_served(told.station), "who is served is known");
    require(tracker_.last_heard(told.station) == now_, "who was heard is remembered");
  }

  kedge::SteadyTime now_ = kedge::SteadyTime() + std::chrono::hours(1);
  ArrivalTracker tracker_{
      {.report_interval = milliseconds(100), .overlap_guard = milliseconds(2000), .max_unknown = kMostUnknown}};
  std::set<std::pair<std::size_t, LinkLayerAddress>> served_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  Link link;
  while (!in.empty()) link.step(in);
  return 0;
}
