#include "speaker/config.h"

#include "common/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge::speaker {
namespace {

using ::testing::HasSubstr;

constexpr char kLeast[] = R"(
name: ar1
lm: {address: "[2001:db8::1]:8818", insecure_plaintext: true}
access: {interfaces: [eth2]}
)";

absl::StatusOr<Settings> settings_of(const std::string& text) {
  v1::SpeakerConfig config;
  if (auto status = parse_config(text, "speaker.yaml", &config); !status.ok()) return status;
  return make_settings(std::move(config), "speaker.yaml");
}

void expect_error(const std::string& text, const std::string& part) {
  const auto settings = settings_of(text);
  ASSERT_FALSE(settings.ok()) << text;
  EXPECT_THAT(std::string(settings.status().message()), HasSubstr(part));
  EXPECT_THAT(std::string(settings.status().message()), HasSubstr("speaker.yaml"));
}

TEST(SpeakerConfigTest, TheSampleShowsEveryDefault) {
  auto sample = load_settings(SAMPLE);
  ASSERT_TRUE(sample.ok()) << sample.status();
  auto defaults = settings_of(kLeast);
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  defaults->config.mutable_lm()->set_address(sample->config.lm().address());
  defaults->config.mutable_lm()->set_insecure_plaintext(false);
  *defaults->config.mutable_access()->mutable_tunnel_sources() = sample->config.access().tunnel_sources();
  defaults->config.mutable_access()->set_authenticator_socket(sample->config.access().authenticator_socket());
  defaults->config.mutable_metrics()->set_listen(sample->config.metrics().listen());
  EXPECT_EQ(sample->config.DebugString(), defaults->config.DebugString());
}

TEST(SpeakerConfigTest, TheSampleNamesEveryKey) {
  v1::SpeakerConfig config;
  ASSERT_TRUE(load_config(SAMPLE, &config).ok());
  const auto* reflection = config.GetReflection();
  for (int i = 0; i < config.GetDescriptor()->field_count(); ++i) {
    const auto* group = config.GetDescriptor()->field(i);
    if (group->message_type() == nullptr) continue;
    const auto& inner = reflection->GetMessage(config, group);
    for (int j = 0; j < group->message_type()->field_count(); ++j) {
      const auto* field = group->message_type()->field(j);
      const bool present = field->is_repeated() ? inner.GetReflection()->FieldSize(inner, field) > 0
                                                : inner.GetReflection()->HasField(inner, field);
      // Its default is what an absent key means.
      if (field->name().starts_with("insecure_")) continue;
      EXPECT_TRUE(present) << group->name() << "." << field->name();
    }
  }
}

TEST(SpeakerConfigTest, EachErrorNamesTheKeyAndWhatToDo) {
  expect_error("name: ''\n", "name: give this access router the name");
  expect_error("name: ar1\nlm: {insecure_plaintext: true}\naccess: {interfaces: [eth2]}\n", "lm.address");
  expect_error("name: ar1\nlm: {address: '[::1]:1', insecure_plaintext: true}\n", "access.interfaces");
  const std::string base = "name: ar1\nlm: {address: '[::1]:1', insecure_plaintext: true}\n";
  expect_error(base + "access: {interfaces: [eth2, eth2]}\n", "'eth2' is given twice");
  expect_error(base + "access: {interfaces: [a-name-that-is-too-long]}\n", "1 to 15 characters");
  expect_error(base + "access: {interfaces: [e], link_local: '2001:db8::1'}\n", "fe80::/10");
  expect_error(base + "access: {interfaces: [e], link_layer_address: '01:00:00:00:00:00'}\n", "unicast");
  expect_error(base + "access: {interfaces: [e], valid_lifetime: 3h}\n", "access.valid_lifetime");
  expect_error(base + "access: {interfaces: [e], preferred_lifetime: 2h, valid_lifetime: 1h}\n", "is longer than");
  expect_error(base + "access: {interfaces: [e], stranger_arrivals: 1000001}\n", "access.stranger_arrivals");
  expect_error(base + "access: {interfaces: [e]}\nkernel: {mobile_table: 254}\n", "kernel's own tables");
  expect_error(base + "access: {interfaces: [e]}\nkernel: {mobile_table: 8819}\n", "must differ");
  expect_error(base + "access: {interfaces: [e]}\nkernel: {access_mtu: 1280}\n", "kernel.access_mtu");
  expect_error(base + "access: {interfaces: [e]}\nkernel: {route_protocol: 2}\n", "kernel.route_protocol");
  expect_error(base + "access: {interfaces: [e], tunnel_sources: [nowhere]}\n", "access.tunnel_sources");
  expect_error(base + "access: {interfaces: [e]}\nlog: {level: loud}\n", "log.level");
  expect_error(base + "access: {interface: [e]}\n", "speaker.yaml:3:10: access.interface: unknown key; did you mean");
}

TEST(SpeakerConfigTest, TheLmIsNamedByItsAddressAndPort) {
  const auto with_lm = [](const std::string& address) {
    return settings_of("name: ar1\nlm: {address: '" + address +
                       "', insecure_plaintext: true}\naccess: {interfaces: [eth2]}\n")
        .status();
  };
  for (const char* good : {"[2001:db8::1]:8818", "[::ffff:192.0.2.1]:1", "192.0.2.1:65535", "lm.example:080"}) {
    EXPECT_TRUE(with_lm(good).ok()) << good << with_lm(good);
  }
  for (const char* bad : {"lm", "lm:", ":8818", "[]:8818", "[::1:8818", "::1]:8818", "2001:db8::1:8818", "lm:0",
                          "lm:65536", "lm:+80", "lm: 80", "l m:80", "[lm]:80", "[[::1]]:80"}) {
    EXPECT_THAT(std::string(with_lm(bad).message()), HasSubstr("lm.address")) << bad;
  }
  EXPECT_FALSE(with_lm(std::string(1'000'000, 'a')).ok());
  EXPECT_TRUE(with_lm(std::string(1'000'000, 'a') + ":80").ok());
}

}  // namespace
}  // namespace kedge::speaker
