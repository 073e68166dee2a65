// Everything that the LM may tell a speaker, and what its planes may report, in any order. What is acknowledged has
// been told, what is announced is one of the LM's levels, and the speaker lives on.
#include <optional>
#include <set>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "speaker/controller/controller.h"
#include "tests/fuzz/input.h"

namespace {

using namespace kedge;
using namespace kedge::speaker;
using fuzz::Input;
using fuzz::require;

constexpr std::array<const char*, 4> kAccessRouters = {"ar1", "ar2", "ar3", ""};
constexpr std::array<const char*, 3> kMobileNodes = {"02:00:00:00:00:11", "02:00:00:00:00:12", "nobody"};
constexpr std::array<const char*, 5> kPrefixes = {"2001:db8:1:1::/64", "2001:db8:1:2::/64", "2001:db8:2:1::/64",
                                                  "2001:db8:3:100::/56", "2001:db8::1"};

class Lm final : public LmClient {
 public:
  void start() override {}
  void stop() override {}
  void ack(const v1::Ack& ack) override {
    require(told.contains(ack.prefix()), "what is acknowledged has been told");
    require(v1::Stage_IsValid(ack.stage()) && ack.stage() != v1::STAGE_UNSPECIFIED, "a stage is one");
  }
  void report_health(const v1::SpeakerHealth&) override {}
  void report_activity(const v1::Activity&) override {}
  void attach(const v1::AttachRequest& request, std::function<void(const absl::Status&)> done) override {
    require(request.ar() == "ar1", "a speaker speaks for its own access router");
    calls.push_back(std::move(done));
  }
  void detach(const v1::DetachRequest& request, std::function<void(const absl::Status&)> done) override {
    require(request.ar() == "ar1", "a speaker speaks for its own access router");
    calls.push_back(std::move(done));
  }

  std::set<std::string> told;
  std::vector<std::function<void(const absl::Status&)>> calls;
};

class Kernel final : public ForwardingPlane {
 public:
  absl::Status set_identity(const Ipv6Address&, const Ipv6Address&, const Ipv6Address&) override { return answer; }
  absl::Status set(const Ipv6Prefix&, const std::optional<Route>&) override { return answer; }
  std::optional<Route> held(const Ipv6Prefix&) const override { return left; }
  absl::Status replace_all(const std::map<Ipv6Prefix, Route>&) override { return answer; }

  absl::Status answer;
  // By an earlier run.
  std::optional<Route> left;
};

class Injector final : public RouteInjector {
 public:
  void set(const Ipv6Prefix&, std::uint32_t) override {}
  void replace_all(const std::map<Ipv6Prefix, std::uint32_t>&) override {}
  void raise_levels(std::uint32_t) override {}
  State state() const override { return State::kSynced; }
  std::string frr_version() const override { return "8.4.4"; }
};

class Observer final : public BestPathObserver {
 public:
  void watch(const Ipv6Prefix&, const Ipv6Address&, std::uint32_t) override {}
  void unwatch(const Ipv6Prefix&) override {}
  void await_withdrawal(const Ipv6Prefix&, std::uint32_t) override {}
  void forget_withdrawal(const Ipv6Prefix&) override {}
};

class Access final : public AccessPlane {
 public:
  void serve(const LinkLayerAddress&, const Ipv6Address& link_local, const std::string&,
             const std::vector<AdvertisedPrefix>&) override {
    served_at = link_local;
  }
  void release(const LinkLayerAddress&) override {}
  void release_after_restart(const LinkLayerAddress&) override {}
  void refuse(const LinkLayerAddress&, std::chrono::milliseconds) override {}
  std::optional<SteadyTime> last_heard(const LinkLayerAddress&) const override { return std::nullopt; }
  void probe(const LinkLayerAddress&, const Ipv6Address&, const std::string&,
             std::function<void(bool)> answered) override {
    questions.push_back(std::move(answered));
  }

  Ipv6Address served_at;
  std::vector<std::function<void(bool)>> questions;
};

v1::Generation generation(Input& in) {
  v1::Generation generation;
  generation.set_epoch(1 + in.below(2));
  generation.set_revision(in.below(8) == 0 ? in.u64() : in.u8());
  return generation;
}

v1::Binding binding(Input& in) {
  v1::Binding binding;
  if (in.below(16) == 0 && binding.ParseFromString(in.text16())) return binding;
  binding.set_prefix(in.choice(kPrefixes));
  binding.set_mn_id(in.choice(kMobileNodes));
  binding.set_home_ar(in.choice(kAccessRouters));
  binding.set_attached_ar(in.choice(kAccessRouters));
  binding.set_last_ar(in.choice(kAccessRouters));
  binding.set_state(static_cast<v1::BindingState>(in.below(6)));
  binding.set_mode(static_cast<v1::Mode>(in.below(5)));
  binding.set_preference(in.below(16) == 0 ? in.u32() : static_cast<std::uint32_t>(in.below(4)));
  const std::uint8_t flags = in.u8();
  binding.set_released((flags & 1U) != 0);
  binding.set_mobile_network((flags & 2U) != 0);
  binding.set_direct_uplink((flags & 4U) != 0);
  *binding.mutable_generation() = generation(in);
  *binding.mutable_revision() = generation(in);
  if ((flags & 8U) != 0) *binding.mutable_attachment_generation() = generation(in);
  binding.mutable_attachment()->set_interface("eth2");
  binding.mutable_attachment()->set_link_layer_address((flags & 16U) != 0 ? "rubbish" : binding.mn_id());
  binding.mutable_attachment()->set_link_local((flags & 32U) != 0 ? "rubbish" : "fe80::11");
  for (std::size_t i = in.below(4); i > 0; --i) {
    auto& holder = *binding.add_holders();
    holder.set_ar(in.choice(kAccessRouters));
    const std::uint8_t held = in.u8();
    holder.set_delivers((held & 1U) != 0);
    holder.set_superseded((held & 2U) != 0);
    holder.set_releasing((held & 4U) != 0);
    holder.set_unreachable((held & 8U) != 0);
    holder.set_redirects_to(kAccessRouters[held / 16 % 4]);
    holder.set_advertises_preference(held / 64);
    *holder.mutable_generation() = (held & 16U) != 0 ? generation(in) : binding.generation();
  }
  return binding;
}

class Speaker {
 public:
  explicit Speaker(bool redirection)
      : controller_(
            io_.get_executor(), {"ar1", 7, 100, redirection, std::chrono::milliseconds(0)}, lm_, kernel_,
            [this](std::uint32_t) {
              auto injector = std::make_unique<Injector>();
              injector_ = injector.get();
              return injector;
            },
            observer_, access_, metrics_) {}

  void step(Input& in) {
    switch (in.below(12)) {
      case 0:
        snapshot(in);
        break;
      case 1:
      case 2:
      case 3:
        record(in);
        break;
      case 4:
        kernel_.answer = in.flag() ? absl::UnavailableError("refused") : absl::OkStatus();
        kernel_.left = in.flag() ? std::optional(Route{}) : std::nullopt;
        if (in.flag()) kernel_.on_programmed(prefix(in));
        break;
      case 5:
        if (injector_ != nullptr) {
          injector_->on_committed(prefix(in), static_cast<std::uint32_t>(in.below(4)));
          injector_->on_state(RouteInjector::State::kSynced, "synced");
        }
        break;
      case 6:
        if (in.flag()) {
          observer_.on_superseded(prefix(in));
        } else {
          observer_.on_withdrawn(prefix(in));
        }
        break;
      case 7:
        arrive(in);
        break;
      case 8:
        leave(in);
        break;
      case 9:
        answer(in);
        break;
      case 10:
        access_.on_ra_sent(mn(in), {{prefix(in), in.flag(), in.flag()}}, now_system());
        break;
      case 11:
        lm_.on_connection(in.flag() ? absl::OkStatus() : absl::UnavailableError("away"));
        break;
    }
    io_.restart();
    io_.poll();
    require(access_.served_at.is_unspecified() || access_.served_at == *Ipv6Address::parse("fe80::11") || wild_,
            "a node is served at the address that the LM has told");
  }

 private:
  static Ipv6Prefix prefix(Input& in) { return *Ipv6Prefix::parse(kPrefixes[in.below(kPrefixes.size() - 1)]); }
  static LinkLayerAddress mn(Input& in) { return *LinkLayerAddress::parse(kMobileNodes[in.below(2)]); }

  v1::Binding told(Input& in) {
    v1::Binding next = binding(in);
    if (const auto prefix = Ipv6Prefix::parse(next.prefix()); prefix.ok()) lm_.told.insert(prefix->to_string());
    wild_ = wild_ || next.attachment().link_local() != "fe80::11";
    return next;
  }

  void snapshot(Input& in) {
    LmClient::Snapshot snapshot;
    auto& welcome = snapshot.welcome;
    *welcome.mutable_revision() = generation(in);
    const std::uint8_t flags = in.u8();
    welcome.set_preference_levels(flags % 4);
    for (std::size_t i = 0; i < 3; ++i) {
      auto& node = *welcome.add_nodes();
      node.set_name(kAccessRouters[i]);
      const std::string number = std::to_string(i + 1);
      node.set_locator("2001:db8:ffff:" + number + "::1");
      node.set_deliver_sid((flags & 16U) != 0 && i != 0 ? "rubbish" : "2001:db8:ffff:" + number + "::d");
      node.set_uplink_sid((flags & 32U) != 0 && i != 0 ? "" : "2001:db8:ffff:" + number + "::e");
    }
    *welcome.mutable_self() = welcome.nodes(0);
    if ((flags & 192U) == 192U) welcome.mutable_self()->set_locator("rubbish");
    for (std::size_t i = in.below(5); i > 0; --i) snapshot.bindings.push_back(told(in));
    lm_.on_snapshot(snapshot);
  }

  void record(Input& in) {
    v1::Record record;
    record.set_more(in.below(4) == 0);
    if (in.below(4) == 0) {
      record.mutable_forget()->set_prefix(in.choice(kPrefixes));
      *record.mutable_forget()->mutable_revision() = generation(in);
    } else {
      *record.mutable_binding() = told(in);
    }
    lm_.on_record(record);
  }

  void arrive(Input& in) {
    Arrival arrival;
    arrival.link_layer_address = mn(in);
    const std::uint8_t flags = in.u8();
    arrival.link_local = *Ipv6Address::parse((flags & 1U) != 0 ? "fe80::12" : "fe80::11");
    arrival.link_local_seen = (flags & 2U) != 0;
    arrival.interface = (flags & 4U) != 0 ? "eth3" : "eth2";
    arrival.link_unchanged = (flags & 8U) != 0;
    arrival.on_earlier_link = (flags & 16U) != 0;
    arrival.trigger = static_cast<v1::Trigger>(1 + flags / 32 % 3);
    arrival.heard_at = now_system();
    arrival.heard_at_steady = std::chrono::steady_clock::now();
    access_.on_arrival(arrival);
  }

  void leave(Input& in) {
    Departure departure;
    departure.link_layer_address = mn(in);
    departure.interface = "eth2";
    departure.reason = v1::DETACH_REASON_LINK_DOWN;
    departure.last_heard = std::chrono::steady_clock::now();
    access_.on_departure(departure);
  }

  // To a call, or to the question whether a node is there.
  void answer(Input& in) {
    const std::size_t how = in.below(4);
    if (!lm_.calls.empty() && how != 3) {
      const auto done = std::move(lm_.calls.front());
      lm_.calls.erase(lm_.calls.begin());
      done(how == 0   ? absl::OkStatus()
           : how == 1 ? absl::UnavailableError("away")
                      : absl::FailedPreconditionError("stale"));
    } else if (!access_.questions.empty()) {
      const auto answered = std::move(access_.questions.front());
      access_.questions.erase(access_.questions.begin());
      answered(in.flag());
    }
  }

  boost::asio::io_context io_;
  Metrics metrics_;
  Lm lm_;
  Kernel kernel_;
  Observer observer_;
  Access access_;
  Injector* injector_ = nullptr;
  // The LM has told of another address, or of none.
  bool wild_ = false;
  Controller controller_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  Speaker speaker(in.flag());
  for (int i = 0; i < 200 && !in.empty(); ++i) speaker.step(in);
  return 0;
}
