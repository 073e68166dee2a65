// The speaker's configuration, checked and with its defaults filled in.
#pragma once

#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "kedge/v1/config.pb.h"
#include "speaker/access/access_plane.h"
#include "speaker/frr/anchoring_plane.h"
#include "speaker/kernel/forwarding_plane.h"
#include "speaker/packet_filter/access_filter.h"
#include "speaker/packet_filter/northbound_guard.h"

namespace kedge::speaker {

// How prefixes get into FRR.
enum class InjectorKind {
  kNorthbound,
  kKernel,
};

struct Settings {
  // With every default filled in.
  v1::SpeakerConfig config;
  AccessPlaneConfig access;
  ForwardingPlaneConfig forwarding;
  BestPathObserverConfig best_path;
  InjectorKind injector = InjectorKind::kNorthbound;
  KernelInjectorConfig kernel_injector;
  AccessFilterConfig access_filter;
  std::set<Ipv6Address> tunnel_sources;
  NorthboundGuardConfig northbound;
};

// Reads a file. Errors name the file, the key and what to do.
absl::StatusOr<Settings> load_settings(const std::string& path);
// Checks a message that was read from `name`.
absl::StatusOr<Settings> make_settings(v1::SpeakerConfig config, const std::string& name);

}  // namespace kedge::speaker
