#include "speaker/packet_filter/nftables.h"

#include <nftables/libnftables.h>

#include <new>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace kedge::speaker {
namespace {

// nft prints the whole input again under its error: only the first line says what is wrong.
absl::Status error_of(nft_ctx* context) {
  std::string text = nft_ctx_get_error_buffer(context);
  text = text.substr(0, text.find('\n'));
  if (absl::StrContains(text, "Operation not permitted")) {
    return absl::PermissionDeniedError(absl::StrCat("nftables: ", text, "; the speaker needs CAP_NET_ADMIN"));
  }
  if (absl::StrContains(text, "No such file or directory"))
    return absl::NotFoundError(absl::StrCat("nftables: ", text));
  return absl::InternalError(absl::StrCat("nftables: ", text));
}

}  // namespace

void Nftables::Free::operator()(nft_ctx* context) const { nft_ctx_free(context); }

Nftables::Nftables() : context_(nft_ctx_new(NFT_CTX_DEFAULT)) {
  if (context_ == nullptr || nft_ctx_buffer_output(context_.get()) != 0 || nft_ctx_buffer_error(context_.get()) != 0) {
    throw std::bad_alloc();
  }
}

Nftables::~Nftables() = default;

absl::Status Nftables::run(const std::string& commands) {
  nft_ctx_output_set_flags(context_.get(), 0);
  const bool failed = nft_run_cmd_from_buffer(context_.get(), commands.c_str()) != 0;
  const auto status = failed ? error_of(context_.get()) : absl::OkStatus();
  // Reading a buffer empties it.
  nft_ctx_get_output_buffer(context_.get());
  return status;
}

absl::StatusOr<std::string> Nftables::list(const std::string& command) {
  nft_ctx_output_set_flags(context_.get(), NFT_CTX_OUTPUT_JSON);
  if (nft_run_cmd_from_buffer(context_.get(), command.c_str()) != 0) return error_of(context_.get());
  return std::string(nft_ctx_get_output_buffer(context_.get()));
}

std::string quoted(const std::string& name) { return absl::StrCat("\"", name, "\""); }

absl::Status check_interface_names(const std::vector<std::string>& interfaces) {
  static constexpr char kQuotable[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:@+";
  for (const auto& name : interfaces) {
    if (!name.empty() && name.find_first_not_of(kQuotable) == std::string::npos) continue;
    return absl::InvalidArgumentError(absl::StrCat("access.interfaces: nftables cannot name '", name,
                                                   "'; give it a name of letters, digits and . _ - : @ +"));
  }
  return absl::OkStatus();
}

}  // namespace kedge::speaker
