// One run of a speaker: the real controller over planes in memory.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "speaker/controller/controller.h"
#include "speaker/frr/route_ledger.h"
#include "tests/model/world.h"

namespace kedge::model {

class Speaker : public speaker::LmClient,
                public speaker::ForwardingPlane,
                public speaker::BestPathObserver,
                public speaker::AccessPlane {
 public:
  Speaker(World& world, Router& router, std::uint64_t incarnation);
  ~Speaker() override;

  std::uint64_t incarnation() const { return incarnation_; }

  // LmClient, as GrpcLmClient does it.
  void start() override {}
  void stop() override {}
  void ack(const v1::Ack& ack) override;
  void report_health(const v1::SpeakerHealth&) override {}
  void report_activity(const v1::Activity& activity) override;
  void attach(const v1::AttachRequest& request, std::function<void(const absl::Status&)> done) override;
  void detach(const v1::DetachRequest& request, std::function<void(const absl::Status&)> done) override;
  void connected(std::shared_ptr<Session> session);
  bool receive();
  // One message, which is acted on by World::run_handlers().
  bool receive_one();
  const std::shared_ptr<Session>& session() const { return session_; }
  bool synced() const { return synced_; }
  // Of this session, older than the last for the same prefix.
  bool take_stale_record(Random& random);

  // ForwardingPlane
  absl::Status set_identity(const Ipv6Address&, const Ipv6Address&, const Ipv6Address&) override {
    return absl::OkStatus();
  }
  absl::Status set(const Ipv6Prefix& prefix, const std::optional<speaker::Route>& route) override;
  std::optional<speaker::Route> held(const Ipv6Prefix& prefix) const override;
  absl::Status replace_all(const std::map<Ipv6Prefix, speaker::Route>& routes) override;
  bool repair(Random& random);

  // BestPathObserver
  void watch(const Ipv6Prefix& prefix, const Ipv6Address& successor, std::uint32_t local_preference) override;
  void unwatch(const Ipv6Prefix& prefix) override { watches_.erase(prefix); }
  void await_withdrawal(const Ipv6Prefix& prefix, std::uint32_t levels) override { awaited_[prefix] = levels; }
  void forget_withdrawal(const Ipv6Prefix& prefix) override { awaited_.erase(prefix); }
  bool ask_bgpd(int self);

  // AccessPlane
  void serve(const LinkLayerAddress& mn, const Ipv6Address& link_local, const std::string& interface,
             const std::vector<speaker::AdvertisedPrefix>& prefixes) override;
  void release(const LinkLayerAddress& mn) override;
  void release_after_restart(const LinkLayerAddress& mn) override;
  void refuse(const LinkLayerAddress&, std::chrono::milliseconds) override {}
  std::optional<SteadyTime> last_heard(const LinkLayerAddress& mn) const override;
  void probe(const LinkLayerAddress& mn, const Ipv6Address&, const std::string& interface,
             std::function<void(bool)> answered) override;
  // The oldest question whether somebody is there.
  bool question_is_answered(int self);
  // Where it serves the MN; nullopt: it does not.
  std::optional<std::string> port_of(const LinkLayerAddress& mn) const {
    const auto served = served_.find(mn);
    return served == served_.end() ? std::nullopt : std::optional(served->second);
  }
  bool hears(const LinkLayerAddress& mn, v1::Trigger trigger, bool guess, const std::string& interface);
  void link_up(const LinkLayerAddress& mn) {
    released_.erase(mn);
    came_up_.insert(mn);
  }
  bool departed(const LinkLayerAddress& mn, v1::DetachReason reason);

  // One step of FRR's only writer: plan a round, commit it, hear of it.
  bool write_frr();
  void frr_was_restarted();

 private:
  class Injector;
  class Meter;
  struct Watch {
    int successor = 0;
    std::uint32_t level = 0;
  };
  const v1::Binding* record(const Ipv6Prefix& prefix) const;
  void take_commit();
  void note_record(const v1::Record& record);

  World& world_;
  Router& router_;
  const std::uint64_t incarnation_;

  std::shared_ptr<Session> session_;
  bool synced_ = false;
  Snapshot snapshot_;
  std::map<Ipv6Prefix, v1::Binding> records_;
  std::vector<v1::Record> earlier_;
  // Of a commit that has not come to its end.
  std::vector<v1::Record> commit_;
  // The last message completed one that forgets.
  bool forgets_ = false;

  struct Pending {
    std::optional<speaker::Route> route;
    v1::Generation generation;
  };
  std::map<Ipv6Prefix, Pending> pending_;
  std::map<Ipv6Prefix, Watch> watches_;
  std::map<Ipv6Prefix, std::uint32_t> awaited_;
  std::map<LinkLayerAddress, std::string> served_;
  struct Released {
    std::chrono::steady_clock::time_point at;
    bool solicitations_count = false;
  };
  std::map<LinkLayerAddress, Released> released_;
  // Whose link came up in this run.
  std::set<LinkLayerAddress> came_up_;
  std::map<LinkLayerAddress, std::chrono::steady_clock::time_point> heard_;

  struct Question {
    LinkLayerAddress mn;
    std::string interface;
    std::function<void(bool)> answered;
  };
  std::deque<Question> questions_;

  Injector* injector_ = nullptr;
  std::unique_ptr<Meter> meter_;
  std::unique_ptr<speaker::ActivityReporter> activity_;
  std::unique_ptr<speaker::Controller> controller_;
};

}  // namespace kedge::model
