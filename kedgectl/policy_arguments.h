// "key=value" of `kedgectl policy set` as a request, and a policy as such text.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kedge/v1/admin.pb.h"

namespace kedge::kedgectl {

// mode=redirect prefix_type=session_lasting allowed_ars=ar1,ar2 fixed_prefixes=P@ar1,P@ar2@redirect
// mobile_network_prefixes=P@ar1 serve_unknown=false relocate_after=30s direct_uplink=true max_prefixes=4
// replacement_time=2m. "key=" takes the field back, so that it is inherited. InvalidArgument: the text names the
// argument.
absl::Status read_policy_arguments(const std::vector<std::string>& arguments, v1::SetPolicyRequest* request);

// One "key=value" for each field that is set, in the order above.
std::vector<std::pair<std::string, std::string>> policy_fields(const v1::Policy& policy);

}  // namespace kedge::kedgectl
