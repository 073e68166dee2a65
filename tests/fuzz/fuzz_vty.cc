// What bgpd and zebra answer over their vty sockets: replies are the same however they are cut, and any text may be in
// them.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "speaker/frr/best_path.h"
#include "speaker/frr/vty_client.h"
#include "speaker/frr/zebra_answers.h"
#include "tests/fuzz/input.h"

namespace {

using kedge::fuzz::Input;
using kedge::fuzz::require;
using kedge::speaker::VtyDecoder;
using kedge::speaker::VtyReply;

constexpr std::size_t kMostBytes = 2000;

struct Outcome {
  std::vector<VtyReply> replies;
  bool failed = false;
};

// Up to the first error. `piece`: bytes at once.
Outcome decode(std::string_view bytes, std::size_t piece) {
  VtyDecoder decoder(kMostBytes);
  Outcome outcome;
  while (!bytes.empty()) {
    const auto now = bytes.substr(0, piece);
    bytes.remove_prefix(now.size());
    auto replies = decoder.feed(now);
    if (!replies.ok()) {
      outcome.failed = true;
      break;
    }
    for (auto& reply : *replies) outcome.replies.push_back(std::move(reply));
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  const std::size_t piece = in.u8() % 64 + 1;
  const std::string bytes = in.rest();
  const Outcome whole = decode(bytes, bytes.size());
  const Outcome cut = decode(bytes, piece);
  require(cut.failed == whole.failed, "pieces make the same error");
  if (!whole.failed) {
    require(cut.replies.size() == whole.replies.size(), "pieces make the same replies");
    for (std::size_t i = 0; i < cut.replies.size(); ++i) {
      require(cut.replies[i].text == whole.replies[i].text, "pieces make the same text");
    }
  }
  const auto prefix = *kedge::Ipv6Prefix::parse("2001:db8:1:1::/64");
  for (const std::string& text : {cut.replies.empty() ? std::string() : cut.replies.back().text, bytes}) {
    require(text.size() <= size, "a reply is part of what came");
    const auto paths = kedge::speaker::parse_paths(prefix, text);
    if (paths.ok() && paths->best) require(!paths->best->next_hop.is_link_local(), "the next hop is a global one");
    static_cast<void>(kedge::speaker::neighbours_follow(text, std::chrono::seconds(1), std::chrono::seconds(10)));
    static_cast<void>(kedge::speaker::parse_kernel_route_count(text));
    require(kedge::speaker::parse_version(text).size() <= text.size(), "a version is a part of the answer");
  }
  return 0;
}
