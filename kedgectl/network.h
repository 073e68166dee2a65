// The access routers of the LM's configuration, as the commands that write other programs' configuration need them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "kedge/v1/config.pb.h"

namespace kedge::kedgectl {

// Locators and SIDs are addresses, pools are prefixes of /48 to /64. InvalidArgument names the access router.
absl::Status check_network(const v1::LmConfig& config);

// NotFound lists those that there are. Lives as long as `config`.
absl::StatusOr<const v1::AccessRouterConfig*> find_access_router(const v1::LmConfig& config, const std::string& name);

}  // namespace kedge::kedgectl
