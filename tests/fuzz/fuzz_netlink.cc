// Bytes as from a netlink socket: every decoder takes every message. What the speaker would send because of them fits.
#include <vector>

#include "speaker/access/link_monitor.h"
#include "speaker/kernel/links.h"
#include "speaker/kernel/netlink_socket.h"
#include "speaker/kernel/routes.h"
#include "speaker/kernel/rules.h"
#include "tests/fuzz/input.h"

namespace {

using kedge::fuzz::require;
namespace speaker = kedge::speaker;

void check_route(speaker::Bytes message) {
  const auto route = speaker::decode_route(message);
  if (!route) return;
  const auto deleted = speaker::decode_route(speaker::encode_delete(*route).bytes());
  require(deleted.has_value(), "a route can be deleted");
  require(
      deleted->destination == route->destination && deleted->source == route->source && deleted->table == route->table,
      "the route that is deleted is the one that was told of");
  if (route->kind == speaker::KernelRoute::Kind::kOther) return;
  const auto again = speaker::decode_route(speaker::encode_replace(*route).bytes());
  require(again && again->kind == route->kind && again->destination == route->destination, "a route comes back");
}

void check_rule(speaker::Bytes message) {
  const auto rule = speaker::decode_rule(message);
  if (!rule) return;
  const auto again = speaker::decode_rule(speaker::encode_rule(*rule).bytes());
  require(again == rule, "a rule comes back");
  speaker::encode_rule_delete(*rule);
}

void check(speaker::Bytes bytes) {
  // A copy of its own, so that a read past its end shows.
  const std::vector<std::uint8_t> message(bytes.begin(), bytes.end());
  check_route(message);
  check_rule(message);
  if (const auto link = speaker::decode_link_state(message)) {
    require(!link->removed || !link->up, "what is gone is not up");
  }
  speaker::decode_link(message);
  speaker::decode_address(message);
  speaker::decode_neighbour(message);
  if (const auto answer = speaker::decode_acknowledgement(message)) {
    require(speaker::kernel_status(*answer, "do it").ok() == answer->ok(), "an error is an error");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  speaker::Bytes rest(data, size);
  check(rest);
  while (const auto message = speaker::take_message(rest)) check(*message);
  return 0;
}
