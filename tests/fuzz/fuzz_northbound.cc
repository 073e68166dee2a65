// What FRR's northbound answers: its version, its configuration as JSON, its Protobuf messages, the end of its HTTP/2
// connection. From whatever configuration, the statics of Kedge are reached in two rounds, and others are not touched.
#include <map>

#include "frr/frr-northbound.pb.h"
#include "speaker/frr/http2_goodbye.h"
#include "speaker/frr/northbound_request.h"
#include "speaker/frr/route_ledger.h"
#include "tests/fuzz/input.h"

namespace {

using kedge::Ipv6Prefix;
using kedge::fuzz::Input;
using kedge::fuzz::require;
namespace speaker = kedge::speaker;

constexpr std::uint32_t kLevels = 8;

void check_round(speaker::RouteLedger& ledger, const std::map<Ipv6Prefix, speaker::HeldRoute>& held,
                 const Ipv6Prefix& desired) {
  const auto plan = ledger.plan(SIZE_MAX);
  for (const auto& [prefix, change] : plan.changes) {
    const auto found = held.find(prefix);
    const bool is_there = found != held.end();
    require(
        prefix == desired || (is_there && found->second.blackhole_tag >= 1 && found->second.blackhole_tag <= kLevels),
        "only what is desired or ours is changed");
    if (change.level == 0 && !change.keep_others) {
      require(is_there && found->second.foreign.empty(), "a static of somebody else is not removed");
    }
  }
  for (const auto schema : {speaker::StaticSchema::kA, speaker::StaticSchema::kB, speaker::StaticSchema::kC}) {
    const auto removals = speaker::build_removals(schema, 1, plan.changes, 500);
    const auto additions = speaker::build_additions(schema, 1, plan.changes, 500);
    require((removals.empty() && additions.empty()) == plan.changes.empty(), "changes are asked for");
  }
  ledger.take_committed(plan.changes);
}

void check_configuration(const std::string& json) {
  const auto held = speaker::parse_statics(json);
  if (!held.ok()) return;
  speaker::RouteLedger ledger(kLevels);
  const Ipv6Prefix desired = *Ipv6Prefix::parse("2001:db8:1:1::/64");
  ledger.replace_all({{desired, 3}});
  ledger.take_held(*held, true);
  // Where the keys of a path are others, it is removed first.
  for (int round = 0; round < 2; ++round) check_round(ledger, *held, desired);
  require(ledger.plan(SIZE_MAX).changes.empty(), "two rounds are enough");
}

void check_goodbye(Input& in) {
  std::string unread;
  while (!in.empty()) {
    unread += in.text8();
    if (speaker::says_goodbye(unread)) return;
    // RFC 9113, 4.1: the length of a frame has 24 bits.
    require(unread.size() < (1U << 24U) + 9, "no more than one frame waits");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  switch (in.below(4)) {
    case 0:
      check_configuration(in.rest());
      break;
    case 1: {
      const auto choice = speaker::choose_schema(in.rest());
      require(choice.ok() || !choice.status().message().empty(), "what is no version says so");
      break;
    }
    case 2: {
      const std::string bytes = in.rest();
      frr::GetCapabilitiesResponse capabilities;
      if (capabilities.ParseFromString(bytes)) speaker::choose_schema(capabilities.frr_version()).IgnoreError();
      frr::GetResponse answer;
      if (answer.ParseFromString(bytes)) check_configuration(answer.data().data());
      break;
    }
    default:
      check_goodbye(in);
      break;
  }
  return 0;
}
