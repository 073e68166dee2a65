// An injector's state, and how it is told: logged and passed on when it changes.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "common/ipv6.h"
#include "speaker/frr/anchoring_plane.h"

namespace kedge::speaker {

// "awaiting", "syncing" or "synced".
const char* name_of(RouteInjector::State state);

class InjectorState {
 public:
  using Tell = std::function<void(RouteInjector::State, const std::string&)>;

  RouteInjector::State state() const { return state_; }
  // Tells when the state or the text is another one.
  void enter(RouteInjector::State state, std::string text, const Tell& tell);

 private:
  RouteInjector::State state_ = RouteInjector::State::kAwaiting;
  std::string text_;
  bool entered_ = false;
};

// "; WHAT 2001:db8::/64 (its reason) and 2 more: REMEDY", or "" when there are no reasons. Pure.
std::string explain(const std::map<Ipv6Prefix, std::string>& reasons, const char* what, const char* remedy);

}  // namespace kedge::speaker
