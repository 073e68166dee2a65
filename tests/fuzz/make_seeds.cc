// Writes the seeds from which the fuzz targets start: make_seeds CORPUS SOURCES, both folders. What is in CORPUS and
// not made here (captured frames, inputs that once broke something) stays.
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "common/openssl.h"
#include "kedge/v1/admin.pb.h"
#include "speaker/access/icmpv6_codec.h"
#include "speaker/kernel/routes.h"
#include "speaker/kernel/rules.h"
#include "tests/fuzz/machine_world.h"

namespace {

using namespace kedge;
namespace fs = std::filesystem;

// The other direction of input.h.
class Seed {
 public:
  Seed& u8(std::size_t value) {
    bytes_.push_back(static_cast<char>(value));
    return *this;
  }
  Seed& u16(std::size_t value) { return u8(value >> 8U).u8(value); }
  Seed& text8(std::string_view text) { return u8(text.size()).raw(text); }
  Seed& text16(std::string_view text) { return u16(text.size()).raw(text); }
  Seed& raw(std::string_view text) {
    bytes_.append(text);
    return *this;
  }
  Seed& raw(std::span<const std::uint8_t> bytes) {
    bytes_.append(bytes.begin(), bytes.end());
    return *this;
  }
  Seed& list(std::initializer_list<std::size_t> values) {
    for (const auto value : values) u8(value);
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

class Corpus {
 public:
  Corpus(fs::path folder, fs::path sources) : folder_(std::move(folder)), sources_(std::move(sources)) {}

  void add(const std::string& target, const std::string& name, const std::string& bytes) const {
    fs::create_directories(folder_ / target);
    std::ofstream(folder_ / target / name, std::ios::binary) << bytes;
  }
  std::string source(const std::string& path) const {
    std::ostringstream text;
    text << std::ifstream(sources_ / path).rdbuf();
    return text.str();
  }

 private:
  fs::path folder_;
  fs::path sources_;
};

void add_access(const Corpus& corpus) {
  const auto mac = [](std::uint8_t number) {
    return LinkLayerAddress(LinkLayerAddress::Bytes{0x02, 0, 0, 0, 0, number});
  };
  speaker::FrameAddresses addresses{mac(0x11), mac(0x01), speaker::eui64_link_local(mac(0x11)),
                                    speaker::all_routers_address()};
  const auto rs = speaker::build_frame(addresses, speaker::RouterSolicitation{mac(0x11)});
  addresses.destination = *Ipv6Address::parse("fe80::1");
  const auto ns = speaker::build_frame(addresses, speaker::NeighbourSolicitation{addresses.destination, mac(0x11)});
  const auto na = speaker::build_frame(addresses, speaker::NeighbourAdvertisement{addresses.source});
  const auto frame = [](Seed& seed, std::size_t port, const std::vector<std::uint8_t>& bytes) -> Seed& {
    return seed.list({1, 0, port, bytes.size()}).raw(bytes);
  };
  Seed served;
  frame(served, 1, rs).list({1, 2, 0x11});
  frame(served, 1, ns);
  frame(served, 0, na).list({1, 3, 0x11, 255, 5, 0x11, 1, 7, 1, 1, 8, 0});
  corpus.add("fuzz_access", "served_and_released", served.bytes());
  Seed flood;
  for (std::uint8_t number = 1; number < 8; ++number) {
    auto data = rs;
    data[11] = number;
    data[20] = 17;
    frame(flood, number % 2, data).list({0, 6, number, 0, 100, 0, 2, number, 0, 4, number, 0, 5, number});
  }
  corpus.add("fuzz_access", "many_stations", flood.bytes());
}

std::string bytes_of(speaker::Bytes bytes) { return {bytes.begin(), bytes.end()}; }

void add_netlink(const Corpus& corpus) {
  using Kind = speaker::KernelRoute::Kind;
  speaker::KernelRoute route;
  route.table = 8818;
  route.protocol = 88;
  route.destination = *Ipv6Prefix::parse("2001:db8:1:1::/64");
  route.interface = 3;
  route.gateway = *Ipv6Address::parse("fe80::11");
  route.segment = *Ipv6Address::parse("2001:db8:a2::d");
  route.inner_table = 8818;
  for (const auto& [kind, name] : {std::pair(Kind::kVia, "deliver"), std::pair(Kind::kEncapsulate, "redirect"),
                                   std::pair(Kind::kDecapsulate, "decapsulate"), std::pair(Kind::kUplink, "uplink"),
                                   std::pair(Kind::kUnreachable, "unreachable")}) {
    route.kind = kind;
    corpus.add("fuzz_netlink", std::string("route_") + name, bytes_of(speaker::encode_replace(route).bytes()));
  }
  speaker::KernelRule rule;
  rule.priority = 883;
  rule.protocol = 88;
  rule.input_interface = "eth2";
  rule.destination = *Ipv6Prefix::parse("2001:db8:a1::d/128");
  rule.suppress_prefix_length = 0;
  corpus.add("fuzz_netlink", "rule", bytes_of(speaker::encode_rule(rule).bytes()));

  speaker::Message link(RTM_NEWLINK, 0);
  auto& info = link.put_header<ifinfomsg>();
  info.ifi_index = 7;
  info.ifi_flags = IFF_UP | IFF_RUNNING;
  link.put_text(IFLA_IFNAME, "eth2");
  link.put_u32(IFLA_CARRIER_UP_COUNT, 3);
  link.put_u32(IFLA_MTU, 1500);
  link.put_link_layer_address(IFLA_ADDRESS, LinkLayerAddress(LinkLayerAddress::Bytes{0x02, 0, 0, 0, 0, 1}));
  auto* kind = link.begin_nest(IFLA_LINKINFO);
  link.put_text(IFLA_INFO_KIND, "veth");
  link.end_nest(kind);
  speaker::Message address(RTM_NEWADDR, 0);
  auto& of = address.put_header<ifaddrmsg>();
  of.ifa_family = AF_INET6;
  of.ifa_prefixlen = 64;
  of.ifa_index = 7;
  address.put_address(IFA_ADDRESS, *Ipv6Address::parse("fe80::1"));
  speaker::Message neighbour(RTM_NEWNEIGH, 0);
  auto& to = neighbour.put_header<ndmsg>();
  to.ndm_family = AF_INET6;
  to.ndm_ifindex = 7;
  to.ndm_state = NUD_PERMANENT;
  neighbour.put_address(NDA_DST, *Ipv6Address::parse("fe80::11"));
  neighbour.put_link_layer_address(NDA_LLADDR, LinkLayerAddress(LinkLayerAddress::Bytes{0x02, 0, 0, 0, 0, 0x11}));
  corpus.add("fuzz_netlink", "link_address_neighbour",
             bytes_of(link.bytes()) + bytes_of(address.bytes()) + bytes_of(neighbour.bytes()));

  speaker::Message error(NLMSG_ERROR, NLM_F_ACK_TLVS | NLM_F_CAPPED);
  error.put_header<nlmsgerr>().error = -EEXIST;
  error.put_text(NLMSGERR_ATTR_MSG, "File exists");
  corpus.add("fuzz_netlink", "error", bytes_of(error.bytes()));
}

void add_frr(const Corpus& corpus) {
  const std::string best =
      R"({"prefix":"2001:db8:1:1::/64","version":3,"paths":[{"aspath":{"string":"Local"},"valid":true,"locPrf":102,)"
      R"("bestpath":{"overall":true,"selectionReason":"Local Pref"},"nexthops":[{"ip":"fe80::2","scope":"link-local"},)"
      R"({"ip":"2001:db8:ffff:2::1","afi":"ipv6","scope":"global","accessible":true}]}]})";
  const std::string end(4, '\0');
  corpus.add("fuzz_vty", "best_path", Seed().u8(15).raw(best).raw(end).bytes());
  corpus.add("fuzz_vty", "nothing", Seed().u8(1).raw("{}\n").raw(end).bytes());
  corpus.add("fuzz_vty", "two_replies", Seed().u8(3).raw("{}").raw(end).raw("{}").raw(end).bytes());

  const auto statics = [](const std::string& routes) {
    return R"({"frr-routing:routing":{"control-plane-protocols":{"control-plane-protocol":[{"type":"frr-staticd:staticd",)"
           R"("name":"staticd","vrf":"default","frr-staticd:staticd":{"route-list":[)" +
           routes + "]}}]}}}";
  };
  const std::string ours_a =
      R"j({"prefix":"2001:db8:1:1::/64","afi-safi":"frr-routing:ipv6-unicast","path-list":[{"table-id":0,"distance":1,)j"
      R"j("tag":2,"frr-nexthops":{"nexthop":[{"nh-type":"blackhole","vrf":"default","gateway":"","interface":"(null)",)j"
      R"j("bh-type":"unspec"}]}}]})j";
  const std::string others_a =
      R"({"prefix":"2001:db8:1:2::/64","afi-safi":"frr-routing:ipv6-unicast","path-list":[{"table-id":0,"distance":1,)"
      R"("tag":1,"frr-nexthops":{"nexthop":[{"nh-type":"ip6-ifindex","vrf":"default","gateway":"fe80::1",)"
      R"("interface":"eth0"}]}}]})";
  const std::string ours_c =
      R"j({"prefix":"2001:db8:1:3::/64","src-prefix":"::/0","afi-safi":"ipv6-unicast","path-list":[{"table-id":0,)j"
      R"j("nh-type":"blackhole","vrf":"default","gateway":"","interface":"(null)","tag":"3","distance":1}]})j";
  corpus.add("fuzz_northbound", "statics_a", Seed().u8(0).raw(statics(ours_a + "," + others_a)).bytes());
  corpus.add("fuzz_northbound", "statics_c", Seed().u8(0).raw(statics(ours_c)).bytes());
  corpus.add("fuzz_northbound", "nothing", Seed().u8(0).raw("{}").bytes());
  for (const char* version : {"8.4.4", "10.3.1", "10.7-dev", "10.7.1-6"}) {
    corpus.add("fuzz_northbound", std::string("version_") + version, Seed().u8(1).raw(version).bytes());
  }
  corpus.add("fuzz_northbound", "frames",
             Seed().u8(3).text8(std::string("\0\0\0\4\0\0\0\0\0\0\0\10\7\0\0\0\0\0", 18) + "goodbye!").bytes());
}

void add_certificate(const Corpus& corpus, const std::string& name, const char* names, const char* not_after) {
  const openssl::Key key(EVP_EC_gen("P-256"));
  const openssl::Cert certificate(X509_new());
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 0x647b1d);
  ASN1_TIME_set_string(X509_getm_notBefore(certificate.get()), "20260102030405Z");
  ASN1_TIME_set_string(X509_getm_notAfter(certificate.get()), not_after);
  X509_NAME_add_entry_by_txt(X509_get_issuer_name(certificate.get()), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("Kedge"), -1, -1, 0);
  X509_set_pubkey(certificate.get(), key.get());
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names);
  X509_add_ext(certificate.get(), extension, -1);
  X509_EXTENSION_free(extension);
  X509_sign(certificate.get(), key.get(), EVP_sha256());
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate.get(), &der);
  corpus.add("fuzz_certificate", name, std::string(der, der + size));
  OPENSSL_free(der);
}

void add_text(const Corpus& corpus) {
  add_certificate(corpus, "speaker", "URI:kedge://speaker/ar1", "20270102030405Z");
  add_certificate(corpus, "without_end", "DNS:lm.example,URI:kedge://lm/lm1,IP:2001:db8::1", "99991231235959Z");
  add_certificate(corpus, "two_identities", "URI:kedge://viewer/bob,URI:kedge://operator/bob", "20270102030405Z");
  int number = 0;
  for (const char* text : {"2001:db8:1:1::/64", "::ffff:192.0.2.1", "02:00:00:00:00:11", "kedge://speaker/ar-1.example",
                           "kedge://mn/02:00:00:00:00:11", "[::1]:50051", "localhost:50051", "::/0"}) {
    corpus.add("fuzz_names", "name_" + std::to_string(++number), text);
  }
  corpus.add("fuzz_config", "lm", corpus.source("lm-server/kedge-lm.yaml"));
  corpus.add("fuzz_config", "speaker", corpus.source("speaker/kedge-speaker.yaml"));
  corpus.add("fuzz_config", "lab_lm", corpus.source("containerlab/three-routers/nodes/lm/lm.yaml"));
  corpus.add("fuzz_config", "lab_speaker", corpus.source("containerlab/three-routers/nodes/ar1/speaker.yaml"));
}

// Attaches kMobileNodes[mn] at kAccessRouters[ar] by a router solicitation.
Seed& attach(Seed& seed, std::size_t ar, std::size_t mn, std::size_t trigger = 1) {
  return seed.list({0, ar, mn, 1, 1, trigger, 1, 1, 1, 1, 0});
}
Seed& acknowledge(Seed& seed, std::size_t ar, std::size_t prefix, v1::Stage stage, std::size_t redirects_to = 0,
                  std::size_t level = 0) {
  return seed.list({4, prefix, 7, static_cast<std::size_t>(stage), redirects_to, 1, level, 1, ar});
}
Seed& wait(Seed& seed, std::size_t milliseconds) { return seed.u8(8).u16(milliseconds); }

void add_machine(const Corpus& corpus) {
  Seed move;
  move.u8(1);
  attach(move, 0, 0);
  acknowledge(move, 0, 0, v1::STAGE_DELIVERING);
  wait(move, 100);
  attach(move, 1, 0);
  acknowledge(move, 1, 0, v1::STAGE_DELIVERING);
  acknowledge(move, 1, 0, v1::STAGE_ADVERTISED, 0, 1);
  acknowledge(move, 0, 0, v1::STAGE_REDIRECTING, 1);
  acknowledge(move, 0, 0, v1::STAGE_SUPERSEDED, 0, 1);
  wait(move, 2000);
  attach(move, 2, 0);
  acknowledge(move, 2, 0, v1::STAGE_DELIVERING);
  acknowledge(move, 2, 0, v1::STAGE_ADVERTISED, 0, 2);
  acknowledge(move, 1, 0, v1::STAGE_SUPERSEDED, 0, 2);
  acknowledge(move, 1, 0, v1::STAGE_WITHDRAWN);
  wait(move, 2000);
  acknowledge(move, 1, 0, v1::STAGE_CLEARED);
  attach(move, 0, 0);
  corpus.add("fuzz_machine", "moves_and_returns", move.bytes());

  Seed end;
  end.u8(0);
  attach(end, 0, 0);
  attach(end, 1, 1);
  end.list({13, 0});             // a restart
  end.list({3, 0, 0, 0, 1, 1});  // detached
  wait(end, 60000);
  acknowledge(end, 0, 0, v1::STAGE_UNREACHABLE);
  wait(end, 60000);
  acknowledge(end, 0, 0, v1::STAGE_CLEARED);
  end.list({13, 2, 13, 1}).u16(600);                         // restored, and by a clock that was set back
  end.list({0, 0, 0, 1, 1, 5, 1, 1, 1, 1, 0, 2, 200, 203});  // recovered
  corpus.add("fuzz_machine", "ends_and_restores", end.bytes());

  Seed policies;
  policies.u8(1);
  policies.list({9, 3, 1, 2, 1});               // redirect for all
  policies.list({9, 0, 0, 64, 200, 0, 0, 1});   // a fixed prefix of a node
  policies.list({9, 0, 0, 128, 202, 2, 0, 1});  // a network behind it
  attach(policies, 0, 0);
  attach(policies, 1, 0);
  policies.list({11, 0, 1, 10, 0, 0, 14, 0});  // drained, without its policy, detached
  corpus.add("fuzz_machine", "policies", policies.bytes());

  v1::AttachRequest request;
  request.set_ar("ar1");
  request.set_mn_id("02:00:00:00:00:11");
  request.mutable_attachment()->set_interface("access0");
  request.mutable_attachment()->set_link_layer_address("02:00:00:00:00:11");
  request.mutable_attachment()->set_link_local("fe80::11");
  request.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
  request.set_incarnation(1);
  request.set_sequence(1);
  v1::Ack ack;
  ack.set_prefix("2001:db8:1:1::/64");
  ack.mutable_generation()->set_epoch(1);
  ack.mutable_generation()->set_revision(1);
  ack.set_stage(v1::STAGE_DELIVERING);
  v1::SpeakerHealth health;
  health.set_kernel("synced");
  corpus.add("fuzz_machine", "messages",
             Seed()
                 .list({1, 15, 0})
                 .text16(request.SerializeAsString())
                 .list({15, 1})
                 .text16(ack.SerializeAsString())
                 .list({15, 3})
                 .text16(health.SerializeAsString())
                 .bytes());
}

// What a state machine has written after a node has moved.
void add_store(const Corpus& corpus) {
  fuzz::World world(true);
  world.load(1);
  for (std::size_t i = 0; i < fuzz::kKnownAccessRouters; ++i) world.connect(fuzz::kAccessRouters[i]);
  std::uint64_t sequence = 0;
  for (const char* ar : {"ar1", "ar2", "ar3"}) {
    v1::AttachRequest request;
    request.set_ar(ar);
    request.set_mn_id(fuzz::kMobileNodes[0]);
    request.mutable_attachment()->set_interface("access0");
    request.mutable_attachment()->set_link_layer_address(request.mn_id());
    request.mutable_attachment()->set_link_local("fe80::11");
    request.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
    request.set_incarnation(1);
    request.set_sequence(++sequence);
    world.take(world.machine.attach(request, world.now));
    world.advance(std::chrono::seconds(1));
  }
  const auto as_seed = [&world] {
    Seed seed;
    seed.u8(1);
    for (const auto& [key, value] : world.values) {
      const bool binding = key.starts_with("binding/");
      const bool policy = key.starts_with("policy/");
      seed.u8(binding ? 0 : policy ? 1 : 5).text16(value);
      if (!binding && !policy) seed.text8(key);
    }
    return seed;
  };
  corpus.add("fuzz_store", "moved", as_seed().bytes());
  v1::SetPolicyRequest policy;
  policy.mutable_scope()->set_mn_id(fuzz::kMobileNodes[0]);
  auto& fixed = *policy.mutable_policy()->add_fixed_prefixes();
  fixed.set_prefix("2001:db8:1:3::/64");
  fixed.set_home_ar("ar1");
  policy.mutable_policy()->mutable_relocate_after()->set_seconds(3);
  world.take(world.machine.set_policy(policy, world.now));
  world.take(world.machine.set_draining("ar2", true, world.now));
  world.take(world.machine.detach_by_operator(fuzz::kMobileNodes[0], world.now));
  corpus.add("fuzz_store", "detached_with_policy", as_seed().bytes());
  v1::BackupHeader header;
  *header.mutable_revision() = world.machine.revision();
  corpus.add("fuzz_store", "restored", as_seed().u8(3).text16(header.SerializeAsString()).bytes());
}

void add_controller(const Corpus& corpus) {
  // Of kPrefixes[prefix] and kMobileNodes[0], with "ar1" and `attached` as holders.
  const auto binding = [](Seed& seed, std::size_t prefix, std::size_t attached, std::size_t level, std::size_t revision,
                          std::size_t state, std::size_t held) -> Seed& {
    return seed.list({1, prefix, 0,        0, attached, 3,        state, 3, 1,    level,    0,
                      0, 1,      revision, 0, 1,        revision, 2,     0, held, attached, held});
  };
  Seed arrives;
  arrives.list({1, 0, 0, 1, 1, 3, 0});  // an empty snapshot
  arrives.list({7, 0, 3, 9, 0});        // an arrival, attached
  binding(arrives.list({1, 1, 1}), 0, 0, 0, 10, 1, 1);
  arrives.list({5, 0, 0, 10, 0, 0, 0, 0});  // committed, an RA sent
  binding(arrives.list({1, 1, 1}), 0, 1, 1, 20, 1, 17);
  arrives.list({6, 0});  // superseded
  binding(arrives.list({1, 1, 1}), 0, 1, 1, 21, 2, 20);
  arrives.list({1, 1, 0, 0, 0, 1, 30});  // forgotten
  corpus.add("fuzz_controller", "arrives_and_moves_on", arrives.bytes());
  Seed snapshots;
  snapshots.list({1, 0, 0, 1, 1, 3, 2});
  binding(snapshots, 0, 0, 1, 10, 1, 1);
  binding(snapshots, 1, 1, 1, 11, 1, 65);
  snapshots.list({8, 0, 9, 1, 4, 1, 1, 1, 0, 11, 1, 0, 1, 1, 3, 1});  // leaves, the kernel refuses, another epoch
  binding(snapshots, 0, 0, 1, 12, 3, 65);
  snapshots.list({9, 3, 1, 9, 0});
  corpus.add("fuzz_controller", "snapshots", snapshots.bytes());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: make_seeds CORPUS SOURCES\n";
    return 2;
  }
  const Corpus corpus(argv[1], argv[2]);
  add_access(corpus);
  add_netlink(corpus);
  add_frr(corpus);
  add_text(corpus);
  add_machine(corpus);
  add_store(corpus);
  add_controller(corpus);
  return 0;
}
