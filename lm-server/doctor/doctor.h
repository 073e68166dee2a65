// `kedge-lm --doctor`: looks at everything on this host that the LM relies on, and changes nothing.
#pragma once

#include "common/doctor.h"
#include "kedge/v1/config.pb.h"

namespace kedge::lm {

// `config` has its defaults. All checks, with answers awaited for seconds at most.
void examine(const v1::LmConfig& config, Doctor& doctor);

}  // namespace kedge::lm
