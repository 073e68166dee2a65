// `kedge-speaker --doctor`: looks at everything on this access router that the speaker relies on, and changes nothing.
#pragma once

#include "common/doctor.h"
#include "speaker/config.h"

namespace kedge::speaker {

// All checks, with answers awaited for seconds at most. Needs CAP_NET_ADMIN to look at the packet filter; what cannot
// be looked at is a warning.
void examine(const Settings& settings, Doctor& doctor);

}  // namespace kedge::speaker
