// Whatever is written as text: addresses, prefixes, link-layer addresses, identities, FRR's address. What is taken says
// the same when it is written and read again.
#include "common/certificate.h"
#include "common/ipv6.h"
#include "common/link_layer_address.h"
#include "common/text.h"
#include "speaker/frr/northbound_address.h"
#include "tests/fuzz/input.h"

using kedge::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(data, data + size);
  if (const auto address = kedge::Ipv6Address::parse(text); address.ok()) {
    require(kedge::Ipv6Address::parse(address->to_string()) == address, "an address comes back");
  }
  if (const auto prefix = kedge::Ipv6Prefix::parse(text); prefix.ok()) {
    require(prefix->length() >= 0 && prefix->length() <= 128, "a prefix has 0 to 128 bits");
    require(kedge::Ipv6Prefix::parse(prefix->to_string()) == prefix, "a prefix comes back");
    require(prefix->contains(*prefix), "a prefix contains itself");
  }
  if (const auto address = kedge::LinkLayerAddress::parse(text); address.ok()) {
    require(kedge::LinkLayerAddress::parse(address->to_string()) == address, "a link-layer address comes back");
  }
  if (const auto identity = kedge::parse_identity(text); identity.ok()) {
    require(identity->uri() == text, "an identity comes back");
    require(identity->name.size() <= 63, "a name has up to 63 characters");
  }
  if (const auto endpoint = kedge::speaker::parse_northbound(text); endpoint.ok()) {
    require(endpoint->address().is_loopback(), "FRR is spoken to on this host only");
  }
  require(kedge::shortened(text).size() <= 103, "a shortened text is short");
  return 0;
}
