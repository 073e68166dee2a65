// forwarding_bench: packets a second through one core and the routing under test, on the way from a correspondent node
// to a mobile node:
//
//   plain     /64s in `main` at ar1, nothing of Kedge's
//   deliver   /64s in the mobile table at ar1, with all rules
//   direct    /64s in `main` at ar1 with the encapsulation in the route itself, to ar2, which delivers
//   redirect  /64s redirected by ar1 (kx0-kx1) to ar2, which delivers
//
// Prints one line of JSON for each sample; ways take turns. Needs root; its namespaces end with it.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"
#include "tests/component/kernel/topology.h"

namespace kedge::speaker {
namespace {

using Clock = std::chrono::steady_clock;
using testing::AccessRouter;
using testing::Namespace;
using testing::Topology;

constexpr int kBurst = 64;
constexpr std::size_t kPayload = 18;

struct Options {
  std::vector<int> bindings{1, 1000, 10000};
  int samples = 5;
  int milliseconds = 1000;
};

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

Ipv6Prefix prefix_of(int number) { return testing::prefix(absl::StrFormat("2001:db8:d:%x::/64", number + 1)); }

// Sends to one address of each prefix in turn, as fast as it goes.
std::uint64_t blast(Namespace& space, int bindings, std::chrono::milliseconds time) {
  return space.run([&] {
    const int fd = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    std::vector<sockaddr_in6> destinations(static_cast<std::size_t>(bindings));
    for (int i = 0; i < bindings; ++i) {
      auto& to = destinations[static_cast<std::size_t>(i)];
      to.sin6_family = AF_INET6;
      to.sin6_port = htons(9);
      to.sin6_addr = testing::address(absl::StrFormat("2001:db8:d:%x::99", i + 1)).to_in6_addr();
    }
    char payload[kPayload] = {};
    iovec part{payload, sizeof payload};
    std::vector<mmsghdr> burst(kBurst);
    std::uint64_t sent = 0;
    const auto end = Clock::now() + time;
    while (Clock::now() < end) {
      for (int i = 0; i < kBurst; ++i) {
        auto& message = burst[static_cast<std::size_t>(i)].msg_hdr;
        message.msg_name = &destinations[(sent + static_cast<std::uint64_t>(i)) % destinations.size()];
        message.msg_namelen = sizeof(sockaddr_in6);
        message.msg_iov = &part;
        message.msg_iovlen = 1;
      }
      const int done = ::sendmmsg(fd, burst.data(), kBurst, 0);
      if (done > 0) sent += static_cast<std::uint64_t>(done);
    }
    ::close(fd);
    return sent;
  });
}

class Way {
 public:
  Way(std::string name, Topology& topology, Namespace& arrives)
      : name_(std::move(name)), topology_(topology), arrives_(arrives) {}

  void sample(int bindings, const Options& options) {
    const auto received = [this] { return arrives_.counter("eth", "rx"); };
    // The first packets make the kernel's caches.
    blast(topology_.cn, bindings, std::chrono::milliseconds(options.milliseconds / 5));
    const auto before = received();
    const auto begin = Clock::now();
    const auto sent = blast(topology_.cn, bindings, std::chrono::milliseconds(options.milliseconds));
    const double seconds = seconds_since(begin);
    const auto arrived = received() - before;
    std::printf("{\"way\": \"%s\", \"bindings\": %d, \"sent\": %llu, \"received\": %llu, \"seconds\": %.6f}\n",
                name_.c_str(), bindings, static_cast<unsigned long long>(sent),
                static_cast<unsigned long long>(arrived), seconds);
    std::fflush(stdout);
  }

 private:
  std::string name_;
  Topology& topology_;
  Namespace& arrives_;
};

// The kernel can be out of per-CPU memory for a moment: encapsulating routes take it faster than it is made ready.
constexpr auto kLongestShortage = std::chrono::seconds(10);

void program(AccessRouter& router, int bindings, const std::function<Route(int)>& route, const char* what) {
  const auto begin = Clock::now();
  int shortages = 0;
  for (int i = 0; i < bindings; ++i) {
    absl::Status status;
    for (const auto tried = Clock::now(); Clock::now() - tried < kLongestShortage; ++shortages) {
      status = router.set(prefix_of(i), route(i));
      if (!absl::IsResourceExhausted(status)) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (!status.ok()) {
      std::fprintf(stderr, "forwarding_bench: %s: %s\n", what, status.ToString().c_str());
      std::exit(1);
    }
  }
  std::printf("{\"programmed\": \"%s\", \"bindings\": %d, \"seconds\": %.6f, \"out_of_memory\": %d}\n", what, bindings,
              seconds_since(begin), shortages);
}

void add_to_main(Namespace& space, int bindings, const std::string& way) {
  const std::string path = absl::StrFormat("/tmp/forwarding_bench.%d", ::getpid());
  {
    std::ofstream batch(path);
    for (int i = 0; i < bindings; ++i) batch << "route replace " << prefix_of(i).to_string() << " " << way << "\n";
  }
  // The second time those for which there was no memory ready the first time.
  space.shell("ip -6 -force -batch " + path + " || ip -6 -force -batch " + path);
  ::unlink(path.c_str());
}

void switch_kedge_off(AccessRouter& router) {
  router.stop();
  if (const auto status = router.space.run([&] { return remove_all(router.config); }); !status.ok()) {
    std::fprintf(stderr, "forwarding_bench: %s\n", status.ToString().c_str());
    std::exit(1);
  }
}

// Each way has routers of its own, so that ways can take turns.
void measure(int bindings, const Options& options) {
  Topology plain;
  Topology deliver;
  Topology direct;
  Topology redirect;
  const std::string to_node = "via fe80::11 dev acc";

  switch_kedge_off(plain.ar1);
  add_to_main(plain.ar1.space, bindings, to_node);

  program(
      deliver.ar1, bindings, [&](int) { return deliver.deliver(); }, "deliver");

  switch_kedge_off(direct.ar1);
  direct.ar1.space.shell("ip sr tunsrc set " + direct.ar1.locator().to_string());
  add_to_main(
      direct.ar1.space, bindings,
      "encap seg6 mode encap.red segs " + direct.ar2.deliver_sid().to_string() + " via 2001:db8:c:1::1 dev upl");
  program(
      direct.ar2, bindings, [&](int) { return direct.deliver(); }, "deliver");

  program(
      redirect.ar2, bindings, [&](int) { return redirect.deliver(); }, "deliver");
  program(
      redirect.ar1, bindings, [&](int) { return redirect.redirect(redirect.ar2); }, "redirect");

  std::vector<Way> ways{{"plain", plain, plain.mn1},
                        {"deliver", deliver, deliver.mn1},
                        {"direct", direct, direct.mn2},
                        {"redirect", redirect, redirect.mn2}};
  for (int i = 0; i < options.samples; ++i) {
    for (auto& way : ways) way.sample(bindings, options);
  }
}

// Every mobile node has its own link-local and link-layer address: as many permanent neighbours.
void measure_neighbours(int bindings) {
  Topology topology;
  std::ifstream limit("/proc/sys/net/ipv6/neigh/default/gc_thresh3");
  int threshold = 0;
  limit >> threshold;
  program(
      topology.ar1, bindings,
      [&](int i) {
        auto route = topology.deliver();
        route.link_local = testing::address(absl::StrFormat("fe80::1:%x", i + 1));
        route.link_layer_address =
            LinkLayerAddress({2, 0, 0, 1, static_cast<std::uint8_t>(i >> 8U), static_cast<std::uint8_t>(i & 0xff)});
        return route;
      },
      "deliver, a neighbour each");
  const auto known =
      std::stoi(topology.ar1.space.shell("ip -6 neigh show dev acc nud permanent | grep -c lladdr || true"));
  std::printf("{\"neighbours\": %d, \"permanent\": %d, \"gc_thresh3\": %d}\n", bindings, known, threshold);
}

int run(const Options& options) {
  if (!testing::can_make_namespaces()) {
    std::fprintf(stderr, "forwarding_bench: needs root: makes network namespaces\n");
    return 1;
  }
  for (const int bindings : options.bindings) measure(bindings, options);
  measure_neighbours(options.bindings.back());
  return 0;
}

}  // namespace
}  // namespace kedge::speaker

int main(int argc, char** argv) {
  kedge::speaker::Options options;
  CLI::App app("Packets a second by plain forwarding, deliver, an encapsulating route and redirect.");
  app.add_option("--bindings", options.bindings, "numbers of /64s")->check(CLI::Range(1, 60000));
  app.add_option("--samples", options.samples, "of each way and number")->check(CLI::Range(1, 1000));
  app.add_option("--milliseconds", options.milliseconds, "length of a sample")->check(CLI::Range(10, 60000));
  CLI11_PARSE(app, argc, argv);
  return kedge::speaker::run(options);
}
