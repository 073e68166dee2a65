// How a level of preference is written into a route of the kernel: what the speaker makes and what FRR's route-map
// KEDGE matches.
#pragma once

#include <cstdint>

namespace kedge {

// Metrics of the levels 1, 2, ... follow this number. Under 2^24: FRR takes the upper 8 bits for the distance, which is
// 0, so that nothing of FRR's own takes precedence. Of two routes the kernel and zebra choose the lower level.
inline constexpr std::uint32_t kKernelMetricBase = 881'800;
constexpr std::uint32_t kernel_metric(std::uint32_t level) { return kKernelMetricBase + level; }

}  // namespace kedge
