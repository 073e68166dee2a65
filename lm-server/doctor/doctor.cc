#include "lm-server/doctor/doctor.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/endpoint.h"
#include "grpcpp/channel.h"
#include "lm-server/store/rocksdb_store.h"

namespace kedge::lm {
namespace {

constexpr std::chrono::seconds kPatience{5};
constexpr std::uintmax_t kLittleSpace = 256 << 20;

void check_store(const std::string& directory, Doctor& doctor) {
  constexpr const char* kCheck = "store";
  std::error_code error;
  if (!std::filesystem::is_directory(directory, error)) {
    return doctor.warning(kCheck, absl::StrCat(directory, " is not there yet"), "kedge-lm makes it when it starts");
  }
  if (std::filesystem::exists(directory + "/" + RocksDbStore::kSupersededFile, error)) {
    return doctor.problem(kCheck,
                          absl::StrCat(directory, " was moved aside by a restore: kedge-lm does not start on it"),
                          "restore a backup, or name the folder that is in use");
  }
  struct stat status {};
  if (::stat(directory.c_str(), &status) == 0 && (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return doctor.problem(kCheck, absl::StrCat(directory, ": others may write to it"),
                          absl::StrCat("chmod 0700 ", directory));
  }
  const auto space = std::filesystem::space(directory, error);
  if (!error && space.available < kLittleSpace) {
    return doctor.warning(kCheck, absl::StrCat(directory, ": ", space.available >> 20, " MiB are free"), "make room");
  }
  doctor.ok(kCheck, absl::StrCat(directory, ", ", space.available >> 20, " MiB are free"));
}

// By a handshake with the LM's own certificate; no call is made, which would be a denial.
void check_port(const v1::LmConfig& config, Doctor& doctor) {
  constexpr const char* kCheck = "port";
  auto endpoint = parse_endpoint(config.listen());
  if (!endpoint.ok()) return;
  if (endpoint->address().is_unspecified()) {
    endpoint->address(endpoint->address().is_v6() ? boost::asio::ip::address(boost::asio::ip::address_v6::loopback())
                                                  : boost::asio::ip::address(boost::asio::ip::address_v4::loopback()));
  }
  const std::string address = endpoint->address().is_v6()
                                  ? absl::StrCat("[", endpoint->address().to_string(), "]:", endpoint->port())
                                  : absl::StrCat(endpoint->address().to_string(), ":", endpoint->port());
  const auto channel = make_channel(address, make_transport_security(config.insecure_plaintext(), config.tls()));
  // The certificate has a check of its own.
  if (!channel.ok()) return;
  if ((*channel)->WaitForConnected(std::chrono::system_clock::now() + kPatience)) {
    return doctor.ok(kCheck,
                     absl::StrCat(config.listen(), config.insecure_plaintext() ? " answers" : " answers, with TLS"));
  }
  doctor.problem(kCheck, absl::StrCat("no LM answers at ", config.listen()),
                 "does kedge-lm run, is the address of this host? Its log says more");
}

}  // namespace

void examine(const v1::LmConfig& config, Doctor& doctor) {
  doctor.check_process({});
  doctor.check_certificate(make_transport_security(config.insecure_plaintext(), config.tls()), Role::kLm, {});
  check_store(config.data_directory(), doctor);
  check_port(config, doctor);
  doctor.check_metrics(config.metrics().listen());
}

}  // namespace kedge::lm
