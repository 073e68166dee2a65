// Kernel settings under /proc/sys of the caller's network namespace.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace kedge::speaker {

// `key` such as "net/ipv6/conf/all/forwarding". Writes only when the value differs, so that a read-only /proc/sys with
// the right values is fine. Errors name the setting and how to set it by hand.
absl::Status set_sysctl(const std::string& key, const std::string& value);
// net/ipv6/conf/<interface>/<key>
absl::Status set_interface_sysctl(const std::string& interface, const std::string& key, const std::string& value);

}  // namespace kedge::speaker
