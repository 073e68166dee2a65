// The kernel's packet filter, by libnftables, in the network namespace of the calling thread.
//
// Threading: one thread at a time for each object. Calls block for as long as the kernel takes: about 0.1 ms to add one
// element to a hash set of 10,000, some milliseconds more when anybody has changed a table since (SetChange has not);
// sets with intervals take a hundred times that.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct nft_ctx;

namespace kedge::speaker {

class Nftables {
 public:
  Nftables();
  ~Nftables();

  Nftables(const Nftables&) = delete;
  Nftables& operator=(const Nftables&) = delete;

  // Carries out commands in nft's own syntax, several separated by newlines, as one transaction: all or none. The error
  // is the first line of nft's. PermissionDenied without CAP_NET_ADMIN.
  absl::Status run(const std::string& commands);

  // The same for a command that lists; returns JSON as in libnftables-json(5). NotFound when there is no such object.
  absl::StatusOr<std::string> list(const std::string& command);

 private:
  struct Free {
    void operator()(nft_ctx* context) const;
  };
  std::unique_ptr<nft_ctx, Free> context_;
};

// In nft's syntax.
std::string quoted(const std::string& name);

// InvalidArgument: one of the interfaces has a name that nft cannot quote: its strings know no escapes, and an asterisk
// at the end is a wildcard.
absl::Status check_interface_names(const std::vector<std::string>& interfaces);

}  // namespace kedge::speaker
