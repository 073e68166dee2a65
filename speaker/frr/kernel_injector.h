// The kernel injector with what is under it, for tests; make_kernel_injector() has both of its own.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "boost/asio/any_io_executor.hpp"
#include "speaker/frr/anchoring_plane.h"
#include "speaker/frr/vty_client.h"
#include "speaker/kernel/anchor_routes.h"

namespace kedge::speaker {

// Called until it succeeds.
using OpenAnchorRoutes = std::function<absl::StatusOr<std::unique_ptr<AnchorRoutes>>()>;

std::unique_ptr<RouteInjector> make_kernel_injector(boost::asio::any_io_executor executor,
                                                    const KernelInjectorConfig& config, OpenAnchorRoutes open,
                                                    std::unique_ptr<VtyClient> zebra);

}  // namespace kedge::speaker
