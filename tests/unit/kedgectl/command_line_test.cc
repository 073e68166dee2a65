#include "kedgectl/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <map>

#include "kedgectl/policy_arguments.h"

namespace kedge::kedgectl {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class CommandLineTest : public testing::Test {
 protected:
  void SetUp() override { clear(); }
  void TearDown() override { clear(); }
  static void clear() {
    unsetenv("KEDGECTL_SERVER");
    unsetenv("KEDGECTL_INSECURE_PLAINTEXT");
  }
  static CommandLine parse(std::vector<std::string> arguments) {
    const auto result = parse_command_line(std::move(arguments));
    if (const auto* message = std::get_if<Message>(&result)) throw std::invalid_argument(message->text);
    return std::get<CommandLine>(result);
  }
  static Message message(std::vector<std::string> arguments) {
    return std::get<Message>(parse_command_line(std::move(arguments)));
  }
};

TEST_F(CommandLineTest, HasSafeDefaults) {
  const auto line = parse({"status"});
  EXPECT_EQ(line.global.server, "[::1]:8818");
  EXPECT_FALSE(line.global.insecure_plaintext);
  EXPECT_EQ(line.global.format, OutputFormat::kTable);
  EXPECT_EQ(line.global.timeout, std::chrono::seconds(10));
  EXPECT_TRUE(std::holds_alternative<StatusCommand>(line.command));
}

TEST_F(CommandLineTest, TakesDefaultsFromTheEnvironmentAndPrefersOptions) {
  setenv("KEDGECTL_SERVER", "[2001:db8::1]:1", 1);
  setenv("KEDGECTL_INSECURE_PLAINTEXT", "true", 1);
  EXPECT_EQ(parse({"nodes"}).global.server, "[2001:db8::1]:1");
  EXPECT_TRUE(parse({"nodes"}).global.insecure_plaintext);
  EXPECT_EQ(parse({"nodes", "--server", "[2001:db8::2]:2"}).global.server, "[2001:db8::2]:2");
  setenv("KEDGECTL_INSECURE_PLAINTEXT", "false", 1);
  EXPECT_FALSE(parse({"nodes"}).global.insecure_plaintext);
  setenv("KEDGECTL_INSECURE_PLAINTEXT", "perhaps", 1);
  EXPECT_EQ(message({"nodes"}).code, ExitCode::kUsage);
}

TEST_F(CommandLineTest, TakesGlobalOptionsBeforeAndAfterTheCommand) {
  for (const auto& line : {parse({"-o", "json", "--insecure-plaintext", "--timeout", "0.5", "nodes"}),
                           parse({"nodes", "-o", "json", "--insecure-plaintext", "--timeout", "0.5"})}) {
    EXPECT_EQ(line.global.format, OutputFormat::kJson);
    EXPECT_TRUE(line.global.insecure_plaintext);
    EXPECT_EQ(line.global.timeout, std::chrono::milliseconds(500));
    EXPECT_TRUE(std::holds_alternative<NodesCommand>(line.command));
  }
}

TEST_F(CommandLineTest, WritesTargetsCanonically) {
  EXPECT_EQ(std::get<BindingCommand>(parse({"binding", "2001:0DB8:8818:1::/64"}).command).prefix,
            "2001:db8:8818:1::/64");
  EXPECT_EQ(std::get<BindingCommand>(parse({"binding", "2001:DB8::0005"}).command).prefix, "2001:db8::5");
  const auto watch = parse({"watch", "--prefix", "2001:0db8::/64", "--mn-id", "02:00:00:00:00:AB"});
  EXPECT_EQ(std::get<WatchCommand>(watch.command).prefix, "2001:db8::/64");
  EXPECT_EQ(std::get<WatchCommand>(watch.command).mn_id, "02:00:00:00:00:ab");
  EXPECT_EQ(std::get<BindingsCommand>(parse({"bindings", "--mn-id", "User@Realm"}).command).mn_id, "User@Realm");
}

TEST_F(CommandLineTest, ReadsWhereToBeginToWatch) {
  EXPECT_FALSE(std::get<WatchCommand>(parse({"watch"}).command).after.has_value());
  EXPECT_EQ(std::get<WatchCommand>(parse({"watch", "--after", "7", "--count", "3"}).command).after, 7U);
  EXPECT_EQ(std::get<WatchCommand>(parse({"watch", "--from-start", "--follow"}).command).after, 0U);
}

TEST_F(CommandLineTest, ReadsAPolicy) {
  const auto line = parse(
      {"policy", "set", "--mn", "02:00:00:00:00:AB", "mode=redirect", "relocate_after=1500ms", "allowed_ars=ar1,ar2",
       "fixed_prefixes=2001:db8:1:f0::/64@ar1,2001:db8:2:f0::/64@ar2@relocate", "direct_uplink=true", "max_prefixes="});
  const auto& request = std::get<PolicySetCommand>(line.command).request;
  EXPECT_EQ(request.scope().mn_id(), "02:00:00:00:00:ab");
  EXPECT_EQ(request.policy().mode(), v1::MODE_REDIRECT);
  EXPECT_EQ(request.policy().relocate_after().nanos(), 500'000'000);
  EXPECT_EQ(request.policy().allowed_ars_size(), 2);
  ASSERT_EQ(request.policy().fixed_prefixes_size(), 2);
  EXPECT_EQ(request.policy().fixed_prefixes(1).home_ar(), "ar2");
  EXPECT_EQ(request.policy().fixed_prefixes(1).mode(), v1::MODE_RELOCATE);
  EXPECT_TRUE(request.policy().direct_uplink());
  EXPECT_FALSE(request.policy().has_serve_unknown());
  ASSERT_EQ(request.inherit_size(), 1);
  EXPECT_EQ(request.inherit(0), "max_prefixes");
}

TEST_F(CommandLineTest, ReadsMobileNetworks) {
  const auto line = parse({"policy", "set", "--mn", "02:00:00:00:00:11",
                           "mobile_network_prefixes=2001:0db8:1:f00::/56@ar1,2001:db8:2::/48@ar2@redirect"});
  const auto& policy = std::get<PolicySetCommand>(line.command).request.policy();
  ASSERT_EQ(policy.mobile_network_prefixes_size(), 2);
  EXPECT_EQ(policy.mobile_network_prefixes(0).prefix(), "2001:db8:1:f00::/56");
  EXPECT_EQ(policy.mobile_network_prefixes(0).home_ar(), "ar1");
  EXPECT_EQ(policy.mobile_network_prefixes(0).mode(), v1::MODE_UNSPECIFIED);
  EXPECT_EQ(policy.mobile_network_prefixes(1).mode(), v1::MODE_REDIRECT);
  EXPECT_TRUE(policy.fixed_prefixes().empty());
  const auto none = parse({"policy", "set", "--mn", "02:00:00:00:00:11", "mobile_network_prefixes="});
  EXPECT_EQ(std::get<PolicySetCommand>(none.command).request.inherit(0), "mobile_network_prefixes");
}

// A field that were forgotten would be taken for something else, or silently for nothing.
TEST_F(CommandLineTest, CanSetEveryFieldOfAPolicy) {
  const std::map<std::string, std::string> values{
      {"mode", "redirect"},
      {"prefix_type", "session_lasting"},
      {"allowed_ars", "ar1"},
      {"fixed_prefixes", "2001:db8:1:f0::/64@ar1"},
      {"mobile_network_prefixes", "2001:db8:1:f00::/56@ar1"},
      {"serve_unknown", "false"},
      {"require_authentication", "true"},
      {"relocate_after", "30s"},
      {"direct_uplink", "true"},
      {"max_prefixes", "4"},
      {"replacement_time", "2m"},
  };
  const auto& type = *v1::Policy::descriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const std::string& key = type.field(i)->name();
    ASSERT_TRUE(values.contains(key)) << key;
    const auto line = parse({"policy", "set", "--mn", "02:00:00:00:00:11", key + "=" + values.at(key)});
    const auto& policy = std::get<PolicySetCommand>(line.command).request.policy();
    EXPECT_EQ(policy_fields(policy), (std::vector<std::pair<std::string, std::string>>{{key, values.at(key)}}));
  }
}

TEST_F(CommandLineTest, ReadsScopesNodesAndDetach) {
  EXPECT_TRUE(std::get<PolicyDeleteCommand>(parse({"policy", "delete", "--default"}).command).scope.defaults());
  EXPECT_EQ(std::get<PolicyDeleteCommand>(parse({"policy", "delete", "--ar", "ar2"}).command).scope.ar(), "ar2");
  EXPECT_EQ(std::get<PolicyShowCommand>(parse({"policy", "show", "02:00:00:00:00:AB"}).command).mn_id,
            "02:00:00:00:00:ab");
  EXPECT_EQ(parse({"policy", "list", "-o", "json"}).global.format, OutputFormat::kJson);
  EXPECT_TRUE(std::get<DrainCommand>(parse({"node", "drain", "ar1"}).command).drain);
  EXPECT_FALSE(std::get<DrainCommand>(parse({"node", "undrain", "ar1"}).command).drain);
  EXPECT_EQ(std::get<DetachCommand>(parse({"detach", "02:00:00:00:00:11"}).command).mn_id, "02:00:00:00:00:11");
}

TEST_F(CommandLineTest, RefusesMistakesWithAHint) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {},
           {"frobnicate"},
           {"status", "extra"},
           {"-o", "xml", "status"},
           {"--timeout", "0", "status"},
           {"--server", "", "status"},
           {"binding"},
           {"binding", "nonsense"},
           {"binding", "192.0.2.1"},
           {"watch", "--after", "-1"},
           {"watch", "--after", "x"},
           {"watch", "--count", "0"},
           {"watch", "--after", "99999999999999999999"},
           {"--timeout", "nan", "status"},
           {"watch", "--after", "1", "--from-start"},
           {"watch", "--prefix", "2001:db8::1/64"},
           {"status", "bindings", "--ar"},
           {"policy"},
           {"policy", "show"},
           {"policy", "set", "mode=redirect"},
           {"policy", "set", "--default", "--ar", "ar1", "mode=redirect"},
           {"policy", "set", "--default", "mode=teleport"},
           {"policy", "set", "--default", "mode"},
           {"policy", "set", "--default", "speed=1"},
           {"policy", "set", "--default", "relocate_after=5"},
           {"policy", "set", "--default", "mode=redirect", "mode=relocate"},
           {"policy", "set", "--mn", "02:00:00:00:00:11", "fixed_prefixes=2001:db8::1/64@ar1"},
           {"policy", "set", "--mn", "02:00:00:00:00:11", "fixed_prefixes=2001:db8::/64"},
           {"policy", "set", "--mn", "02:00:00:00:00:11", "mobile_network_prefixes=2001:db8::/56"},
           {"policy", "set", "--mn", "02:00:00:00:00:11", "mobile_network_prefixes=2001:db8:0:1::/56@ar1"},
           {"policy", "set", "--mn", "02:00:00:00:00:11", "mobile_network_prefixes=2001:db8::/56@ar1@fast"},
           {"policy", "delete"},
           {"node", "drain"},
           {"node"},
           {"detach"},
       }) {
    const auto result = message(arguments);
    EXPECT_EQ(result.code, ExitCode::kUsage);
    EXPECT_THAT(result.text, StartsWith("kedgectl: "));
    EXPECT_THAT(result.text, HasSubstr("See kedgectl --help."));
  }
  EXPECT_THAT(
      message({"frobnicate"}).text,
      HasSubstr(
          "status, nodes, bindings, binding, watch, policy, node, detach, audit, backup, doctor, pki, frr-config, "
          "ipsec-config or station"));
  EXPECT_THAT(message({"watch", "--after", "-1"}).text, HasSubstr("--after: '-1' is no whole number of 0 or more"));
  EXPECT_THAT(message({"binding", "nonsense"}).text, HasSubstr("'nonsense' is neither an IPv6 address nor a prefix"));
  EXPECT_THAT(message({"binding", "2001:db8::1/64"}).text, HasSubstr("did you mean 2001:db8::/64?"));
}

TEST_F(CommandLineTest, HelpShowsExamplesFirstAndTheExitCodes) {
  const auto help = message({"--help"});
  EXPECT_EQ(help.code, ExitCode::kOk);
  EXPECT_LT(help.text.find("Examples:"), help.text.find("Usage:"));
  EXPECT_THAT(help.text, HasSubstr("3    the server cannot be reached"));
  EXPECT_THAT(help.text, HasSubstr("KEDGECTL_SERVER"));
  const auto watch = message({"watch", "--help"});
  EXPECT_EQ(watch.code, ExitCode::kOk);
  EXPECT_LT(watch.text.find("kedgectl watch --from-start"), watch.text.find("Usage:"));
  EXPECT_THAT(watch.text, HasSubstr("--follow"));
}

TEST_F(CommandLineTest, TellsItsVersion) {
  EXPECT_EQ(message({"--version"}).code, ExitCode::kOk);
  EXPECT_THAT(message({"--version"}).text, StartsWith("kedgectl "));
}

}  // namespace
}  // namespace kedge::kedgectl
