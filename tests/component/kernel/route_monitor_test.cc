#include "speaker/kernel/route_monitor.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/component/kernel/topology.h"

namespace kedge::speaker {
namespace {

using testing::eventually;
using testing::Namespace;
using testing::prefix;

TEST(RouteNotices, TellOfChangesInTableMainOnly) {
  if (!testing::can_make_namespaces()) GTEST_SKIP() << "needs root: makes network namespaces";
  Namespace space("notices");
  std::unique_ptr<RouteNotices> notices;
  std::vector<Ipv6Prefix> seen;
  space.run([&] {
    notices = make_route_notices(space.context().get_executor()).value();
    notices->on_route = [&](const Ipv6Prefix& p) { seen.push_back(p); };
  });
  const auto count = [&] { return space.run([&] { return seen.size(); }); };
  space.shell("ip -6 route add blackhole 2001:db8:1::/64 table 8818");
  space.shell("ip -6 route add blackhole 2001:db8:2::/64 proto bgp");
  EXPECT_TRUE(eventually([&] { return count() == 1; }));
  space.shell("ip -6 route del blackhole 2001:db8:2::/64");
  EXPECT_TRUE(eventually([&] { return count() == 2; }));
  space.run([&] {
    EXPECT_THAT(seen, ::testing::Each(prefix("2001:db8:2::/64")));
    notices.reset();
  });
}

TEST(RouteNotices, TellOfAnOverrun) {
  if (!testing::can_make_namespaces()) GTEST_SKIP() << "needs root: makes network namespaces";
  Namespace space("overrun");
  std::unique_ptr<RouteNotices> notices;
  bool overrun = false;
  space.run([&] {
    notices = make_route_notices(space.context().get_executor()).value();
    notices->on_overrun = [&] { overrun = true; };
    // The executor is kept busy here, so nothing is read while the kernel writes more than the buffer holds.
    EXPECT_EQ(std::system("for i in $(seq 0 30000); do printf 'route add blackhole 2001:db8:1:%x::/64\\n' $i; done"
                          " | ip -6 -batch -"),
              0);
  });
  EXPECT_TRUE(eventually([&] { return space.run([&] { return overrun; }); }));
  space.run([&] { notices.reset(); });
}

}  // namespace
}  // namespace kedge::speaker
