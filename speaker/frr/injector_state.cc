#include "speaker/frr/injector_state.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace kedge::speaker {

const char* name_of(RouteInjector::State state) {
  switch (state) {
    case RouteInjector::State::kAwaiting:
      return "awaiting";
    case RouteInjector::State::kSyncing:
      return "syncing";
    case RouteInjector::State::kSynced:
      return "synced";
  }
  return "";
}

void InjectorState::enter(RouteInjector::State state, std::string text, const Tell& tell) {
  if (entered_ && state == state_ && text == text_) return;
  entered_ = true;
  state_ = state;
  text_ = std::move(text);
  log(state == RouteInjector::State::kAwaiting ? LogLevel::kWarning : LogLevel::kInfo, "frr_state", "state",
      name_of(state), "text", text_);
  if (tell) tell(state_, text_);
}

std::string explain(const std::map<Ipv6Prefix, std::string>& reasons, const char* what, const char* remedy) {
  if (reasons.empty()) return "";
  const auto& [prefix, reason] = *reasons.begin();
  std::string text = absl::StrCat("; ", what, " ", prefix.to_string(), " (", reason, ")");
  if (reasons.size() > 1) absl::StrAppend(&text, " and ", reasons.size() - 1, " more");
  absl::StrAppend(&text, ": ", remedy);
  return text;
}

}  // namespace kedge::speaker
