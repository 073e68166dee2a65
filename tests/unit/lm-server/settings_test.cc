#include "lm-server/core/settings.h"

#include <string>

#include "common/config.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"

namespace kedge::lm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

v1::LmConfig good() {
  v1::LmConfig config;
  config.set_insecure_plaintext(true);
  config.set_data_directory("/var/lib/kedge-lm");
  for (int i = 1; i <= 2; ++i) {
    const std::string n = std::to_string(i);
    auto& ar = *config.add_access_routers();
    ar.set_name("ar" + n);
    ar.set_locator("2001:db8:ffff:" + n + "::1");
    ar.set_deliver_sid("2001:db8:ffff:" + n + "::d");
    ar.add_pools("2001:db8:" + n + "::/48");
  }
  apply_defaults(config);
  return config;
}

std::string error_of(const v1::LmConfig& config) {
  const auto settings = make_settings(config, "lm.yaml");
  return settings.ok() ? "" : std::string(settings.status().message());
}

TEST(SettingsTest, AcceptsAGoodConfiguration) {
  const auto settings = make_settings(good(), "lm.yaml");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->access_routers.size(), 2U);
  EXPECT_EQ(settings->mode, v1::MODE_RELOCATE);
  EXPECT_EQ(settings->detach_grace, std::chrono::seconds(10));
  EXPECT_EQ(settings->preference_levels, 8U);
}

TEST(SettingsTest, BoundsNodesOfWhichNothingIsKnown) {
  auto config = good();
  config.mutable_mobility()->set_new_nodes(1'000'001);
  EXPECT_THAT(error_of(config), HasSubstr("mobility.new_nodes:"));
  config = good();
  config.mutable_mobility()->mutable_new_nodes_window()->set_seconds(25 * 3600);
  EXPECT_THAT(error_of(config), HasSubstr("mobility.new_nodes_window"));
}

TEST(SettingsTest, RefusesPoolsThatAreTooShortOrTooLong) {
  auto config = good();
  config.mutable_access_routers(1)->set_pools(0, "2001:db8::/47");
  EXPECT_THAT(error_of(config), AllOf(HasSubstr("lm.yaml: access_routers[1].pools[0]:"), HasSubstr("/48 to /64")));
  config.mutable_access_routers(1)->set_pools(0, "2001:db8::/65");
  EXPECT_THAT(error_of(config), HasSubstr("/48 to /64"));
}

TEST(SettingsTest, NamesBothSidesOfAnOverlap) {
  auto config = good();
  config.mutable_access_routers(1)->set_pools(0, "2001:db8:1:8000::/52");
  EXPECT_THAT(error_of(config), AllOf(HasSubstr("\"ar1\""), HasSubstr("\"ar2\""), HasSubstr("2001:db8:1::/48"),
                                      HasSubstr("2001:db8:1:8000::/52")));
}

TEST(SettingsTest, RefusesOverlapWithinOneAccessRouter) {
  auto config = good();
  config.mutable_access_routers(0)->add_pools("2001:db8:1:1::/64");
  EXPECT_THAT(error_of(config), HasSubstr("overlaps"));
}

TEST(SettingsTest, RefusesDuplicateNamesAndAddresses) {
  auto config = good();
  config.mutable_access_routers(1)->set_name("ar1");
  EXPECT_THAT(error_of(config), HasSubstr("access_routers[1].name"));
  config = good();
  config.mutable_access_routers(1)->set_locator("2001:db8:ffff:1::d");
  EXPECT_THAT(error_of(config), AllOf(HasSubstr("access_routers[1].locator"), HasSubstr("must all differ")));
}

TEST(SettingsTest, RefusesMissingOrUnusableAddresses) {
  auto config = good();
  config.mutable_access_routers(0)->clear_locator();
  EXPECT_THAT(error_of(config), HasSubstr("access_routers[0].locator: is missing"));
  config = good();
  config.mutable_access_routers(0)->set_deliver_sid("fe80::1");
  EXPECT_THAT(error_of(config), HasSubstr("access_routers[0].deliver_sid"));
  config = good();
  config.mutable_access_routers(0)->set_locator("203.0.113.1");
  EXPECT_THAT(error_of(config), HasSubstr("access_routers[0].locator"));
}

TEST(SettingsTest, RefusesBadNames) {
  for (const std::string& name : {std::string(), std::string("a r"), std::string(64, 'a'), std::string("ar/1")}) {
    auto config = good();
    config.mutable_access_routers(0)->set_name(name);
    EXPECT_THAT(error_of(config), HasSubstr("access_routers[0].name")) << name;
  }
}

TEST(SettingsTest, RefusesValuesOutOfRange) {
  auto config = good();
  config.mutable_mobility()->mutable_detach_grace()->set_seconds(601);
  EXPECT_THAT(error_of(config), HasSubstr("mobility.detach_grace"));
  config = good();
  config.mutable_mobility()->mutable_redirect_hold()->set_seconds(-1);
  EXPECT_THAT(error_of(config), HasSubstr("mobility.redirect_hold"));
  config = good();
  config.mutable_mobility()->set_max_prefixes_per_mn(16);
  EXPECT_THAT(error_of(config), HasSubstr("mobility.max_prefixes_per_mn"));
  config = good();
  config.mutable_mobility()->set_preference_levels(2);
  EXPECT_THAT(error_of(config), HasSubstr("mobility.preference_levels"));
  config = good();
  config.mutable_mobility()->set_flap_moves(1);
  EXPECT_THAT(error_of(config), HasSubstr("mobility.flap_moves"));
  config = good();
  config.mutable_mobility()->mutable_relocate_after()->set_seconds(24 * 3600 + 1);
  EXPECT_THAT(error_of(config), HasSubstr("mobility.relocate_after"));
  config = good();
  config.mutable_mobility()->set_prefix_type("non_persistent");
  EXPECT_THAT(error_of(config), AllOf(HasSubstr("mobility.prefix_type"), HasSubstr("contradicts mobility.mode")));
  config = good();
  config.mutable_mobility()->set_mode("teleport");
  EXPECT_THAT(error_of(config), AllOf(HasSubstr("mobility.mode"), HasSubstr("nomadic, redirect or relocate")));
}

TEST(SettingsTest, RefusesAConfigurationWithoutAccessRoutersOrFolder) {
  auto config = good();
  config.clear_access_routers();
  EXPECT_THAT(error_of(config), HasSubstr("access_routers"));
  config = good();
  config.clear_data_directory();
  EXPECT_THAT(error_of(config), HasSubstr("data_directory"));
}

TEST(SampleTest, EveryOptionalKeyShowsItsDefault) {
  v1::LmConfig sample;
  const auto status = load_config(KEDGE_SAMPLE, &sample);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(make_settings(sample, KEDGE_SAMPLE).ok()) << make_settings(sample, KEDGE_SAMPLE).status();

  v1::LmConfig defaults;
  defaults.set_data_directory(sample.data_directory());
  *defaults.mutable_access_routers() = sample.access_routers();
  apply_defaults(defaults);
  std::string difference;
  google::protobuf::util::MessageDifferencer differ;
  differ.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differ.Compare(defaults, sample)) << difference;
}

void expect_every_key(const google::protobuf::Message& message, const std::string& path) {
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const auto* field = message.GetDescriptor()->field(i);
    const std::string key = path + field->name();
    if (field->is_repeated()) {
      EXPECT_GT(reflection->FieldSize(message, field), 0) << key;
      if (field->message_type() != nullptr && reflection->FieldSize(message, field) > 0) {
        expect_every_key(reflection->GetRepeatedMessage(message, field, 0), key + "[0].");
      }
    } else if (field->message_type() != nullptr) {
      EXPECT_TRUE(reflection->HasField(message, field)) << key;
      if (field->message_type()->file() == message.GetDescriptor()->file()) {
        expect_every_key(reflection->GetMessage(message, field), key + ".");
      }
    } else if (key != "metrics.listen" && key != "insecure_plaintext" && key != "tls.crl_directory") {
      EXPECT_TRUE(reflection->HasField(message, field)) << key << " is not in the sample";
    }
  }
}

TEST(SampleTest, HasEveryKey) {
  v1::LmConfig sample;
  ASSERT_TRUE(load_config(KEDGE_SAMPLE, &sample).ok());
  expect_every_key(sample, "");
}

}  // namespace
}  // namespace kedge::lm
