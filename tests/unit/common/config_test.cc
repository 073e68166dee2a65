#include "common/config.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "common/time.h"
#include "kedge/v1/config.pb.h"

namespace kedge {
namespace {

using std::chrono::nanoseconds;

// The error of reading `text` as a speaker's configuration named "s.yaml"; empty when it is accepted.
std::string speaker_error(std::string_view text) {
  v1::SpeakerConfig config;
  const auto status = parse_config(text, "s.yaml", &config);
  if (!status.ok()) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
  return std::string(status.message());
}

nanoseconds router_lifetime(const std::string& text) {
  v1::SpeakerConfig config;
  const auto status = parse_config("access:\n  router_lifetime: " + text + "\n", "s.yaml", &config);
  EXPECT_TRUE(status.ok()) << status;
  return from_proto(config.access().router_lifetime());
}

TEST(ParseConfig, ReadsEveryKindOfValue) {
  v1::SpeakerConfig config;
  const auto status = parse_config(R"(
name: ar1   # a comment
lm:
  address: "[2001:db8::1]:8818"
  insecure_plaintext: true
access:
  interfaces: [eth1, eth2]
  router_lifetime: 30m
kernel:
  mobile_table: 8818
  redirection: false
)",
                                   "s.yaml", &config);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(config.name(), "ar1");
  EXPECT_EQ(config.lm().address(), "[2001:db8::1]:8818");
  EXPECT_TRUE(config.lm().insecure_plaintext());
  ASSERT_EQ(config.access().interfaces_size(), 2);
  EXPECT_EQ(config.access().interfaces(1), "eth2");
  EXPECT_EQ(config.access().router_lifetime().seconds(), 1800);
  EXPECT_EQ(config.kernel().mobile_table(), 8818U);
  EXPECT_TRUE(config.kernel().has_redirection());
  EXPECT_FALSE(config.kernel().redirection());
  EXPECT_FALSE(config.has_frr());
}

TEST(ParseConfig, ReadsAListOfGroups) {
  v1::LmConfig config;
  const auto status =
      parse_config("access_routers:\n  - name: ar1\n    pools: [2001:db8:1::/48]\n  - name: ar2\n    pools: []\n",
                   "lm.yaml", &config);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(config.access_routers_size(), 2);
  EXPECT_EQ(config.access_routers(0).pools(0), "2001:db8:1::/48");
  EXPECT_EQ(config.access_routers(1).name(), "ar2");
  EXPECT_EQ(config.access_routers(1).pools_size(), 0);
}

TEST(ParseConfig, NamesAnUnknownKeyAndTheNearestKnownOne) {
  EXPECT_EQ(speaker_error("name: ar1\naccess:\n  interface: [eth1]\n"),
            "s.yaml:3:3: access.interface: unknown key; did you mean 'interfaces'?");
}

TEST(ParseConfig, ListsTheKnownKeysWhenNoneIsNear) {
  EXPECT_EQ(speaker_error("log:\n  colour_scheme: dark\n"),
            "s.yaml:2:3: log.colour_scheme: unknown key; known here: level");
}

TEST(ParseConfig, NamesAnUnknownKeyInsideOfAList) {
  v1::LmConfig config;
  EXPECT_EQ(parse_config("access_routers:\n  - name: ar1\n  - nmae: ar2\n", "lm.yaml", &config).message(),
            "lm.yaml:3:5: access_routers[1].nmae: unknown key; did you mean 'name'?");
}

TEST(ParseConfig, RefusesAKeyGivenTwice) {
  EXPECT_EQ(speaker_error("name: ar1\nlog:\n  level: info\nname: ar2\n"), "s.yaml:4:1: name: this key is given twice");
  EXPECT_EQ(speaker_error("log:\n  level: info\n  level: info\n"), "s.yaml:3:3: log.level: this key is given twice");
}

TEST(ParseConfig, RefusesAKeyWithoutAValue) {
  const std::string what = ": this key has no value; leave it out to have its default";
  EXPECT_EQ(speaker_error("name:\n"), "s.yaml:1:1: name" + what);
  EXPECT_EQ(speaker_error("name: ~\n"), "s.yaml:1:1: name" + what);
  EXPECT_EQ(speaker_error("name: ar1\naccess:\nlog:\n  level: info\n"), "s.yaml:2:1: access" + what);
  EXPECT_EQ(speaker_error("access:\n  interfaces:\n"), "s.yaml:2:3: access.interfaces" + what);
}

TEST(ParseConfig, RefusesAnEmptyListItem) {
  EXPECT_EQ(speaker_error("access:\n  interfaces:\n    - eth1\n    - ~\n"),
            "s.yaml:4:7: access.interfaces[1]: a single value is expected here");
}

TEST(ParseConfig, RefusesAListOrAGroupWhereAValueIsExpected) {
  EXPECT_EQ(speaker_error("name: [ar1]\n"), "s.yaml:1:7: name: a single value is expected here");
  EXPECT_EQ(speaker_error("name:\n  first: ar1\n"), "s.yaml:2:3: name: a single value is expected here");
}

TEST(ParseConfig, RefusesAValueWhereAListOrAGroupIsExpected) {
  EXPECT_EQ(speaker_error("access:\n  interfaces: eth1\n"), "s.yaml:2:15: access.interfaces: a list is expected here");
  EXPECT_EQ(speaker_error("access: eth1\n"), "s.yaml:1:9: access: a group of keys is expected here");
  EXPECT_EQ(speaker_error("access: [eth1]\n"), "s.yaml:1:9: access: a group of keys is expected here");
  EXPECT_EQ(speaker_error("just text\n"), "s.yaml:1:1: a group of keys is expected here");
  EXPECT_EQ(speaker_error("- name: ar1\n"), "s.yaml:1:1: a group of keys is expected here");
}

TEST(ParseConfig, RefusesAKeyThatIsNoWord) {
  EXPECT_EQ(speaker_error("[a, b]: ar1\n"), "s.yaml:1:1: a key is a plain word");
}

TEST(ParseConfig, RefusesTextWhereABooleanIsExpected) {
  for (const std::string value : {"yes", "1", "True", "on", "\"true\"", "'false'", "maybe"}) {
    std::string shown = value;
    std::erase_if(shown, [](char c) { return c == '"' || c == '\''; });
    EXPECT_EQ(speaker_error("lm:\n  insecure_plaintext: " + value + "\n"),
              "s.yaml:2:23: lm.insecure_plaintext: true or false is expected, not '" + shown + "'");
  }
}

TEST(ParseConfig, KeepsNumbersInTheRangeOfTheirType) {
  v1::SpeakerConfig config;
  ASSERT_TRUE(parse_config("kernel: {mobile_table: 0, uplink_table: 4294967295}", "s.yaml", &config).ok());
  EXPECT_EQ(config.kernel().uplink_table(), 4294967295U);
  for (const std::string value : {"4294967296", "-1", "1.5", "0x10", "many", "99999999999999999999", "1e3"}) {
    EXPECT_EQ(speaker_error("kernel:\n  mobile_table: " + value + "\n"),
              "s.yaml:2:17: kernel.mobile_table: a whole number of 0 or more is expected, not '" + value + "'");
  }
  EXPECT_EQ(speaker_error("kernel:\n  mobile_table: \"8818\"\n"),
            "s.yaml:2:17: kernel.mobile_table: a whole number of 0 or more is expected, not '8818'");
}

TEST(ParseConfig, ReadsDurations) {
  using std::chrono::hours, std::chrono::milliseconds, std::chrono::minutes, std::chrono::seconds;
  EXPECT_EQ(router_lifetime("250ms"), milliseconds(250));
  EXPECT_EQ(router_lifetime("0s"), seconds(0));
  EXPECT_EQ(router_lifetime("10s"), seconds(10));
  EXPECT_EQ(router_lifetime("1.5s"), milliseconds(1500));
  EXPECT_EQ(router_lifetime("0.29s"), milliseconds(290));
  EXPECT_EQ(router_lifetime("1.001s"), milliseconds(1001));
  EXPECT_EQ(router_lifetime("30m"), minutes(30));
  EXPECT_EQ(router_lifetime("2h"), hours(2));
}

TEST(ParseConfig, RefusesADurationWithoutUnitOrSense) {
  for (const std::string value : {"10", "-5s", "10 s", "s", "1.2.3s", ".s", "10S", "10sec", "5d", "1us", "soon",
                                  "300000h", "999999999999999999999999s", "[10s]", "{a: 10s}", "\"\"", "1e3s", "+1s"}) {
    EXPECT_EQ(speaker_error("name: ar1\naccess:\n  router_lifetime: " + value + "\n"),
              "s.yaml:3:20: access.router_lifetime: a duration with its unit is expected: 250ms, 10s, 30m or 2h");
  }
}

TEST(ParseConfig, SaysThatAFileIsEmpty) {
  for (const std::string text : {"", "\n\n", "# only a comment\n", "---\n", "~\n"}) {
    EXPECT_EQ(speaker_error(text), "s.yaml: the file is empty") << text;
  }
  EXPECT_EQ(speaker_error("{}"), "");
}

TEST(ParseConfig, RefusesASecondDocument) {
  EXPECT_EQ(speaker_error("name: ar1\n---\nname: ar2\n"),
            "s.yaml:2:1: a second YAML document begins here; one is expected");
}

TEST(ParseConfig, SaysWhereTextIsNoYaml) {
  EXPECT_EQ(speaker_error("name: ar1\nlm: {address: x\n").rfind("s.yaml:3:1: not valid YAML: ", 0), 0U)
      << speaker_error("name: ar1\nlm: {address: x\n");
  EXPECT_EQ(speaker_error("name: ar1\n  log: x\n").rfind("s.yaml:2:6: not valid YAML: ", 0), 0U)
      << speaker_error("name: ar1\n  log: x\n");
  EXPECT_EQ(speaker_error("access: {interfaces: [eth1]}}\n").rfind("s.yaml:1:29: not valid YAML: ", 0), 0U);
  EXPECT_EQ(speaker_error("name: *nobody\n").rfind("s.yaml:1:7: not valid YAML: ", 0), 0U)
      << speaker_error("name: *nobody\n");
  EXPECT_EQ(speaker_error("name:\tar1\n\tlog: x\n").rfind("s.yaml:2:", 0), 0U);
}

TEST(ParseConfig, SurvivesAnAliasToItself) {
  EXPECT_NE(speaker_error("access: &a\n  interfaces: *a\n"), "");
  EXPECT_NE(speaker_error("access:\n  interfaces: &a [*a]\n"), "");
}

TEST(ParseConfig, RefusesTextThatIsNoUtf8) {
  v1::SpeakerConfig config;
  EXPECT_EQ(parse_config("name: \"ar\xff\"\n", "speaker.yaml", &config).message(),
            "speaker.yaml:1:7: name: text in UTF-8 is expected here");
  EXPECT_TRUE(parse_config("name: \"\xe2\x82\xac\"\n", "speaker.yaml", &config).ok());
}

TEST(ParseConfig, SurvivesDeepNesting) {
  EXPECT_NE(speaker_error(std::string(20'000, '[')), "");
  EXPECT_NE(speaker_error(std::string(20'000, '{')), "");
}

// Neither crashes nor throws, and each error begins with the file's name.
TEST(ParseConfig, SurvivesNoise) {
  const std::string good =
      "name: ar1\nlm:\n  address: \"[::1]:8818\"\n  insecure_plaintext: true\naccess:\n  interfaces: [eth1, eth2]\n"
      "  router_lifetime: 30m\nkernel:\n  mobile_table: 8818\n";
  std::mt19937_64 random(1);
  for (int i = 0; i < 20'000; ++i) {
    std::string text = good;
    for (std::uint64_t edits = 1 + random() % 4; edits != 0; --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, 1 + random() % 5);
          break;
        default:
          text.insert(at, 1, "&*!|>'\"%@`{}[],:#-?\n\t \\"[random() % 23]);
      }
      if (text.empty()) text = "x";
    }
    v1::SpeakerConfig config;
    const auto status = parse_config(text, "s.yaml", &config);
    if (!status.ok()) {
      ASSERT_EQ(std::string(status.message()).rfind("s.yaml:", 0), 0U) << status;
    }
  }
}

class LoadConfig : public testing::Test {
 protected:
  void SetUp() override {
    std::string folder = (std::filesystem::temp_directory_path() / "kedge-config-XXXXXX").string();
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
  v1::SpeakerConfig config_;
};

TEST_F(LoadConfig, ReadsAFileAndNamesItInErrors) {
  const std::string path = folder_ / "speaker.yaml";
  std::ofstream(path) << "name: ar1\n";
  ASSERT_TRUE(load_config(path, &config_).ok());
  EXPECT_EQ(config_.name(), "ar1");
  std::ofstream(path) << "nam: ar1\n";
  EXPECT_EQ(load_config(path, &config_).message(), path + ":1:1: nam: unknown key; did you mean 'name'?");
  std::ofstream{path};
  EXPECT_EQ(load_config(path, &config_).message(), path + ": the file is empty");
}

TEST_F(LoadConfig, SaysWhyAFileCannotBeRead) {
  const std::string absent = folder_ / "absent.yaml";
  const auto status = load_config(absent, &config_);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "cannot read the configuration '" + absent + "': No such file or directory");
  EXPECT_EQ(load_config(folder_, &config_).message(),
            "cannot read the configuration '" + folder_.string() + "': Is a directory");
}

}  // namespace
}  // namespace kedge
