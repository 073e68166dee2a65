// Configuration files of both daemons: any text is either taken or refused with the file's name and what is wrong.
#include "common/config.h"
#include "lm-server/core/settings.h"
#include "speaker/config.h"
#include "tests/fuzz/input.h"

namespace {

using kedge::fuzz::require;

void require_named(const absl::Status& status) {
  require(std::string(status.message()).starts_with("file.yaml"), "an error names the file");
}

template <typename Config, typename MakeSettings>
void check(const std::string& text, MakeSettings make_settings) {
  Config config;
  if (const auto status = kedge::parse_config(text, "file.yaml", &config); !status.ok()) return require_named(status);
  Config again;
  require(
      kedge::parse_config(text, "file.yaml", &again).ok() && again.SerializeAsString() == config.SerializeAsString(),
      "the same text is the same configuration");
  const auto settings = make_settings(config);
  if (!settings.ok()) require_named(settings.status());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(data, data + size);
  check<kedge::v1::LmConfig>(text, [](kedge::v1::LmConfig config) {
    kedge::lm::apply_defaults(config);
    return kedge::lm::make_settings(config, "file.yaml");
  });
  check<kedge::v1::SpeakerConfig>(
      text, [](const kedge::v1::SpeakerConfig& config) { return kedge::speaker::make_settings(config, "file.yaml"); });
  return 0;
}
