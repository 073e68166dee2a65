// Chooses in the kernel which frames of an access interface reach the speaker, so that the data of served MNs costs
// nothing in user space: a socket filter (eBPF) with a map of the stations whose data is of no use now.
//
// Neighbour and multicast listener discovery (ICMPv6 131 to 136 and 143) always passes, whole. Any other frame passes,
// cut to its headers, unless its source is in the map: then only the time is noted there.
//
// Threading: none of its own; the kernel's side runs at the same time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "common/link_layer_address.h"
#include "common/time.h"

namespace kedge::speaker {

class FrameFilter {
 public:
  // Where the kernel does not permit eBPF, a filter is made that passes discovery only, and `hears_data()` is false.
  static std::unique_ptr<FrameFilter> make();

  ~FrameFilter();
  FrameFilter(const FrameFilter&) = delete;
  FrameFilter& operator=(const FrameFilter&) = delete;

  bool hears_data() const { return program_ >= 0; }
  // Why there is no eBPF; OK when there is.
  const absl::Status& status() const { return status_; }

  // To be called before the packet socket is bound.
  absl::Status attach(int packet_socket) const;
  // Stops the data frames of the station; false when the map is full (frames then go on to come).
  bool suppress(std::uint32_t interface_index, const LinkLayerAddress& source);
  void pass(std::uint32_t interface_index, const LinkLayerAddress& source);
  // When the last data frame of a suppressed station came; nullopt when none did since suppress().
  std::optional<SteadyTime> last_data(std::uint32_t interface_index, const LinkLayerAddress& source) const;

 private:
  FrameFilter() = default;
  absl::Status load();

  int map_ = -1;
  int program_ = -1;
  absl::Status status_;
};

}  // namespace kedge::speaker
