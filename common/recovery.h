// Of both sides when the location management server's store was restored from a backup.
#pragma once

#include <chrono>

namespace kedge {

// For so long the LM takes no mobile node for gone that it has not heard of since, and access routers keep redirects
// that it does not know. Longer than speakers need to connect again and to ask all their mobile nodes.
inline constexpr std::chrono::seconds kRecoveryTime{60};

}  // namespace kedge
