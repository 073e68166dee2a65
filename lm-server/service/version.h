// Version of kedge-lm, as operators see it. KEDGE_VERSION is the CMake project's.
#pragma once

namespace kedge::lm {
inline constexpr const char* kVersion = KEDGE_VERSION;
}
