// The heart of the location management server: which access router shall hold what, for which prefix, in which order.
//
// Standards: RFC 8818, 4 (nomadic, redirection, relocation); RFC 8818, 2 (location management).
//
// A deterministic state machine. Each command changes the state in memory at once and returns an Output: the commit
// that makes the change durable, and the messages, the events and the answer that may leave the process once the commit
// is done, in the order of the Outputs. No I/O, no clock: time is an argument, and must not run backwards. No threads
// but those in which load() reads ahead.
//
// Why it is safe
// - An AR is entered in a binding's holders in the commit that tells it anything, and leaves only by acknowledging, for
//   the present generation, that it holds nothing after it was told to let go.
// - An acknowledgement of an older generation never makes the machine believe that an AR holds less.
// - An AR is redirected to only after it has acknowledged that it delivers at the present generation, so generations
// grow
//   along any chain of redirects.
// - The attached AR's preference is above that of every AR that may still announce the prefix. When the levels are used
//   up, nobody announces: the home aggregate and the redirects carry the traffic until all have withdrawn, and the
//   attached AR begins again at level 1.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/ipv6.h"
#include "common/time.h"
#include "common/token_bucket.h"
#include "kedge/v1/admin.pb.h"
#include "kedge/v1/mobility.pb.h"
#include "kedge/v1/types.pb.h"
#include "lm-server/core/binding_table.h"
#include "lm-server/core/commit.h"
#include "lm-server/core/policy.h"
#include "lm-server/core/prefix_pool.h"
#include "lm-server/core/settings.h"

namespace kedge::lm {

struct BindingRecord;

// To one session. A message for a session that has ended is dropped: the next one begins with a snapshot.
struct Message {
  std::uint64_t session = 0;
  // What is no record.
  std::shared_ptr<const v1::LmMessage> content;
  // A v1::Record in its serialised form, which all sessions that are told of it share.
  std::shared_ptr<const std::string> record;
};

// As it is read in the end.
v1::LmMessage parsed(const Message& message);

// What a command has changed, for the audit trail: not what access routers have merely acknowledged.
struct AuditedChange {
  std::string subject;
  // Empty: it did not exist.
  std::string before;
  std::string after;
};

struct Output {
  // The answer to the command.
  absl::Status status;
  // Attach: of the attachment, as committed.
  v1::Generation generation;
  // Detach: nothing was changed.
  bool stale = false;
  // Detach by operator: how many have become detached.
  std::uint32_t prefixes = 0;

  std::vector<AuditedChange> changes;
  // Of the commit's revision.
  std::uint64_t epoch = 0;

  std::optional<Commit> commit;
  std::vector<Message> messages;
  // `id` and `recorded_at` are the recorder's.
  std::vector<v1::Event> events;
  // SessionUp: the session of the same AR that this one replaces; 0 if none.
  std::uint64_t replaced_session = 0;
};

class Machine {
 public:
  Machine(Settings settings, std::uint64_t epoch);

  // Key of a binding in the store.
  static std::string key_of(const Ipv6Prefix& prefix);
  // Key that a restored store has until its first load: the v1::BackupHeader of what it was restored from.
  static constexpr const char* kRestoredFromKey = "restored/from";

  // Forgets everything but the configuration and takes over what the store has. Bindings that the configuration no
  // longer covers are deleted, holders that it no longer knows are dropped: the Output's commit does so in the store,
  // and
  // `*dropped` (may be null) gets one line of text for each. One whose holders are all gone ends by the next tick(), or
  // with its quarantine. DataLoss: a value is no binding, or one that contradicts itself; the text names its key.
  // A store that was restored (kRestoredFromKey) says so by an event, once; where mobile nodes are and what ARs hold is
  // then unknown until the ARs have told (TRIGGER_RECOVERY), or Settings::recovery_time is over.
  absl::StatusOr<Output> load(std::uint64_t epoch, std::uint64_t revision, ValueReader& values, SystemTime now,
                              std::vector<std::string>* dropped);
  absl::StatusOr<Output> load(std::uint64_t epoch, std::uint64_t revision,
                              const std::map<std::string, std::string>& values, SystemTime now,
                              std::vector<std::string>* dropped);

  // Errors are those of mobility.proto.
  Output attach(const v1::AttachRequest& request, SystemTime now);
  Output detach(const v1::DetachRequest& request, SystemTime now);
  // FailedPrecondition: it is not attached. NotFound.
  Output detach_by_operator(const std::string& mn_id, SystemTime now);
  // Errors are those of admin.proto.
  Output set_policy(const v1::SetPolicyRequest& request, SystemTime now);
  Output delete_policy(const v1::PolicyScope& scope, SystemTime now);
  Output set_draining(const std::string& ar, bool draining, SystemTime now);
  // `session` is greater than that of any session before.
  Output session_up(const v1::Hello& hello, std::uint64_t session, SystemTime now);
  Output session_down(std::uint64_t session, SystemTime now);
  // Ack and health are ignored when `session` is not the AR's present one.
  Output ack(std::uint64_t session, const v1::Ack& ack, SystemTime now);
  void health(std::uint64_t session, const v1::SpeakerHealth& health);
  // Ends what has been idle for Settings::idle_after; nothing else of it leads to a commit. Ignored as an Ack is.
  // InvalidArgument: something was malformed; the rest counts.
  Output activity(std::uint64_t session, const v1::Activity& activity, SystemTime now);
  // Does what is due.
  Output tick(SystemTime now);
  std::optional<SystemTime> next_deadline() const;

  // Read access. Pointers are valid until the next command, and over a thousand further reads.
  v1::Generation revision() const;
  // By the binding's prefix, or by anything inside of it: the longest match.
  const v1::Binding* find(const Ipv6Prefix& prefix) const;
  std::vector<const v1::Binding*> bindings_of(const std::string& mn_id) const;
  // Of a binding that ends when idle: since when nothing was forwarded to or from it, as far as known.
  std::optional<SystemTime> idle_since(const Ipv6Prefix& prefix) const;
  // In the order of prefixes, beginning behind `after`, until `visit` returns false.
  void visit_bindings(const std::optional<Ipv6Prefix>& after,
                      const std::function<bool(const v1::Binding&)>& visit) const;
  std::vector<v1::Node> nodes() const;
  std::optional<v1::Node> describe_node(const std::string& ar) const;
  std::vector<v1::PolicyEntry> policies() const;
  const v1::PolicyEntry* find_policy(const v1::PolicyScope& scope) const;
  absl::StatusOr<v1::EffectivePolicy> effective_policy(const v1::GetEffectivePolicyRequest& request) const;
  std::size_t binding_count() const { return bindings_.size(); }
  std::uint64_t attached_count() const { return attached_count_; }
  std::uint64_t moving_count() const { return moving_count_; }
  std::uint32_t preference_levels() const { return settings_.preference_levels; }
  std::uint32_t node_count() const { return static_cast<std::uint32_t>(nodes_.size()); }
  std::uint32_t connected_count() const;
  // "ar1, ar2, ar3"
  std::string known_access_routers() const;

 private:
  using Entry = BindingEntry;
  using Idle = IdleTime;
  struct MobileNode {
    std::vector<Ipv6Prefix> prefixes;
    // The last that its attached AR has reported; 0: not known, since the clock is another or the store was restored.
    SystemTime heard{};
    SystemTime heard_or(SystemTime now) const { return heard == SystemTime() ? now : heard; }
    // Of the last call that was taken, for each AR that has made one.
    struct Sequence {
      std::string ar;
      std::uint64_t incarnation = 0;
      std::uint64_t sequence = 0;
    };
    std::vector<Sequence> sequences;
    const Sequence* sequence_at(const std::string& ar) const;
    void take_sequence(const std::string& ar, std::uint64_t incarnation, std::uint64_t sequence);
    // Those within the flap window, oldest first; not durable.
    std::vector<SystemTime> moves;
    // It flaps: no relocation before then. Durable as the bindings' relocate_at.
    std::optional<SystemTime> quiet_at;
    // When it was last told that it is at two ARs at once, and what has been seen of that since; not durable.
    std::optional<SystemTime> alarmed_at;
    std::uint64_t untold = 0;
  };
  struct NodeState {
    NodeState(const AccessRouter& ar, const Settings& settings);
    v1::NodeInfo info;
    PrefixPool pool;
    std::uint64_t session = 0;
    std::optional<SystemTime> since;
    v1::SpeakerHealth health;
    std::string version;
    absl::btree_set<Ipv6Prefix> held;
    std::uint64_t attached = 0;
    std::uint64_t home = 0;
    bool draining = false;
    // That no prefix is left has been told.
    bool exhausted = false;
    // MNs of which nothing was known and that got a prefix here; nullopt: without limit.
    std::optional<TokenBucket> new_nodes;
    std::optional<SystemTime> new_nodes_alarmed_at;
    // New MNs that were refused since.
    std::uint64_t new_nodes_untold = 0;
    // Of the run of its speaker that has opened the last session; 0: none has.
    std::uint64_t incarnation = 0;
  };
  // How a call stands to those of the same AR for the same MN that were taken: one that was refused leaves those that
  // it has overtaken in force.
  enum class CallOrder {
    kYounger,
    // The last one once more.
    kRepeated,
    kStale,
  };
  // What an MN gets at an AR beside what it brings along.
  struct Assignment {
    std::vector<FixedPrefix> fixed;
    // From the AR's pool.
    std::optional<Ipv6Prefix> fresh;
    bool exhausted = false;
    bool keeps_any = false;
  };
  class Transaction;

  // Unavailable: a call of a run of the speaker that has ended, or whose session is still to come.
  static absl::Status check_run(const NodeState& at, std::uint64_t incarnation);
  CallOrder order_of(const std::string& ar, const std::string& mn_id, std::uint64_t incarnation,
                     std::uint64_t sequence) const;
  absl::Status check_younger(const MobileNode& mn, const std::string& ar, SystemTime heard) const;
  absl::Status check_policy_allows(const v1::AttachRequest& request, const Rules& rules, const NodeState& here) const;
  // nullopt: something is known of the MN, or there have not been too many new ones at this AR.
  std::optional<Output> refuse_new(const v1::AttachRequest& request, NodeState& here, SystemTime now);
  bool is_attached_at(const std::string& mn_id, const std::string& ar) const;
  // Whether an attach at `ar` changes the binding, rather than end it.
  bool goes_along(const v1::Binding& binding, const std::string& ar, const Rules& rules) const;
  std::vector<Ipv6Prefix> movable(const MobileNode& mn, const std::string& ar, const Rules& rules) const;
  std::vector<FixedPrefix> missing_fixed(const Rules& rules) const;
  bool is_repeated(const std::vector<Ipv6Prefix>& prefixes, const v1::AttachRequest& request) const;
  // Takes `fresh` from the pool.
  Assignment assign(const std::string& mn_id, const std::string& ar, const Rules& rules);
  void count_move(Transaction& tx, MobileNode& mn, const v1::AttachRequest& request, const Rules& rules);
  // Before the bindings go along. At most once a minute for an MN.
  void tell_two_access_routers(Transaction& tx, MobileNode& mn, const v1::AttachRequest& request) const;
  static void tell_exhausted(Output& output, NodeState& at, const std::string& mn_id, SystemTime now);

  void bring_along(Transaction& tx, MobileNode& mn, const v1::AttachRequest& request, SystemTime heard,
                   const Rules& rules, const Assignment& assignment);
  void create(Transaction& tx, const Ipv6Prefix& prefix, const std::string& home_ar, const v1::AttachRequest& request,
              SystemTime heard, const Rules& rules);
  // A binding that is attached nowhere yet.
  Entry& introduce(Transaction& tx, const Ipv6Prefix& prefix, const std::string& home_ar, const std::string& mn_id,
                   const std::string& detail = {});
  void move(Transaction& tx, Entry& entry, const v1::AttachRequest& request, SystemTime heard, const Rules& rules);
  v1::Generation attachment_of(const Transaction& tx, const v1::AttachRequest& request) const;
  // For the attachment and the mode that the binding has now.
  void begin_generation(Transaction& tx, Entry& entry);
  // Of one that begins now.
  SystemTime end_of_grace(SystemTime now) const;
  void depart(Transaction& tx, Entry& entry, v1::DetachReason reason, SystemTime at);
  void end(Transaction& tx, Entry& entry);
  // Ends it for good.
  void release(Transaction& tx, Entry& entry, const std::string& why);

  static bool may_tell_of_use(const Entry& entry, const std::string& ar);
  bool awaits_last_word(const Entry& entry) const;
  void note_use(Entry& entry, const std::string& ar, const v1::Activity::Use& use, std::chrono::nanoseconds age,
                SystemTime now) const;
  // Unless it is the only one that its MN can have here.
  void end_idle(Transaction& tx, const Ipv6Prefix& prefix, std::chrono::nanoseconds idle);

  Plan plan_of(const v1::Binding& binding, const Rules& rules, SystemTime now) const;
  static void take_plan(v1::Binding& binding, const Plan& plan);
  // Of an attached binding, whose rules, or whose time, have come to be others.
  void replan(Transaction& tx, Entry& entry, const Rules& rules);
  static const char* mode_name(v1::Mode mode);
  absl::Status check_fixed_are_free(const v1::PolicyEntry& entry) const;
  std::vector<FixedPrefix> fixed_of(const v1::PolicyScope& scope) const;
  void policy_changed(Transaction& tx, const v1::PolicyScope& scope, const std::vector<FixedPrefix>& had);
  void release_fixed(Transaction& tx, const std::vector<FixedPrefix>& had);
  void reserve_fixed(Transaction& tx, const v1::PolicyScope& scope);
  void apply_policy(Transaction& tx, const std::string& mn_id);
  v1::Node describe(const std::string& ar, const NodeState& state) const;
  std::uint64_t drain_remaining(const std::string& ar, const NodeState& state) const;

  void apply_ack(Transaction& tx, Entry& entry, v1::Holder& holder, const v1::Ack& ack);
  void apply_forwarding_ack(Entry& entry, v1::Holder& holder, const v1::Ack& ack);

  // What the AR where the MN is now has to do about its prefixes that have ended.
  void place_refusals(Transaction& tx, const std::string& mn_id);
  static void refuse_at(Transaction& tx, Entry& entry, const v1::Binding* present);

  // Draws every conclusion from the record as it stands.
  void advance(Transaction& tx, Entry& entry);
  void settle_preference(Transaction& tx, Entry& entry);
  // Whether the attached AR has to announce the prefix by BGP in the present generation.
  bool has_to_announce(const v1::Binding& binding) const;
  // Another AR than the attached one may announce the prefix, and its speaker has (`connected`) a session or has none.
  bool another_announces(const v1::Binding& binding, bool connected) const;
  void release_holders(Transaction& tx, Entry& entry);

  void run_timer(Transaction& tx, Entry& entry);
  std::optional<SystemTime> due_of(const Entry& entry) const;
  static std::optional<SystemTime> due_by_record(const v1::Binding& binding, std::optional<SystemTime> grace_ends);
  void set_timer(const Ipv6Prefix& prefix, Entry& entry, std::optional<SystemTime> at);
  void index(const Ipv6Prefix& prefix, const v1::Binding& binding, int sign);
  void forget(const Ipv6Prefix& prefix, Entry& entry);
  NodeState* node(const std::string& name);
  NodeState* node_of_session(std::uint64_t session);
  Output refuse(absl::Status status, const v1::AttachRequest& request, SystemTime now);
  absl::Status unknown_access_router(const std::string& name) const;
  void send(Output& output, const NodeState& to, std::shared_ptr<const v1::LmMessage> message) const;
  void send_record(Output& output, const NodeState& to, std::shared_ptr<const std::string> record) const;
  absl::Status load_policies(const std::map<std::string, std::string>& values, std::vector<std::string>* dropped);
  // Of bindings that are taken over.
  struct Loading;
  void load_binding(BindingRecord& record, Loading& loading);
  void reserve_fixed_again();

  // After a restore.
  struct Restoration {
    // Set at the first load.
    std::optional<v1::BackupHeader> from;
    // When the first load was.
    std::optional<SystemTime> at;
  };
  static absl::StatusOr<Restoration> load_restoration(const std::map<std::string, std::string>& values, SystemTime now);
  static void tell_restored(const Restoration& restoration, Output& output, Commit& commit);
  void begin_epoch(v1::Binding& binding, const v1::Generation& generation, SystemTime now) const;
  // By home AR.
  using Youngest = absl::flat_hash_map<const NodeState*, std::pair<SystemTime, Ipv6Prefix>>;
  void place_pools(const Youngest& youngest, const Restoration& restoration);
  NodeState* home_of(const Ipv6Prefix& prefix);
  // Takes up those of the request's prefixes that were lost and may be the MN's, to be attached at `at`.
  std::vector<Ipv6Prefix> adopt(Transaction& tx, const v1::AttachRequest& request, const std::string& at,
                                SystemTime heard, const Rules& rules);
  // The MN was heard at another AR later: what only the request's AR knows of goes there. Absent: there is no such
  // thing.
  std::optional<Output> adopt_elsewhere(const v1::AttachRequest& request, SystemTime now);
  std::uint64_t recover(v1::Binding& binding, std::string* dropped);

  const Settings settings_;
  PolicyBook policies_;
  std::uint64_t epoch_;
  std::uint64_t revision_ = 0;
  // Of a store that was restored once.
  std::optional<SystemTime> restored_at_;
  // None overlaps another: pools hand out each prefix once.
  BindingTable bindings_;
  // References to its values stay.
  absl::node_hash_map<std::string, MobileNode> mobile_nodes_;
  std::map<std::string, NodeState> nodes_;
  // That node() has found last.
  NodeState* last_node_ = nullptr;
  std::unordered_map<std::uint64_t, std::string> sessions_;
  std::set<std::pair<SystemTime, Ipv6Prefix>> timers_;
  std::uint64_t attached_count_ = 0;
  std::uint64_t moving_count_ = 0;
};

}  // namespace kedge::lm
