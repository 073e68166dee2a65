// kedge-lm: the location management server. Wiring only.
//
//   speakers, operators -> Server (gRPC threads) -> Engine (io thread) -> Machine
//                                                   Engine <-> RocksDbStore (writer thread)
//
// With --restore: a new store from a backup, and nothing else.
//
// Exit codes: 0 stopped as asked, 1 error while running, 2 bad configuration or command line.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "CLI/CLI.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/signal_set.hpp"
#include "common/certificate_monitor.h"
#include "common/config.h"
#include "common/credentials.h"
#include "common/daemon.h"
#include "common/doctor.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/metrics_http.h"
#include "common/privileges.h"
#include "common/status.h"
#include "common/time.h"
#include "fmt/format.h"
#include "google/protobuf/util/time_util.h"
#include "kedge/v1/config.pb.h"
#include "lm-server/core/settings.h"
#include "lm-server/doctor/doctor.h"
#include "lm-server/service/admission.h"
#include "lm-server/service/engine.h"
#include "lm-server/service/server.h"
#include "lm-server/service/version.h"
#include "lm-server/store/restore.h"
#include "lm-server/store/rocksdb_store.h"

namespace kedge::lm {
namespace {

struct Configuration {
  v1::LmConfig config;
  Settings settings;
};

absl::StatusOr<Configuration> read_configuration(const std::string& path) {
  Configuration result;
  if (auto s = load_config(path, &result.config); !s.ok()) return s;
  apply_defaults(result.config);
  auto settings = make_settings(result.config, path);
  if (!settings.ok()) return settings.status();
  result.settings = std::move(*settings);
  if (auto s = set_log_level(result.config.log().level()); !s.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": log.level: ", s.message()));
  }
  return result;
}

int fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "kedge-lm: %s\n", std::string(status.message()).c_str());
  return code;
}

// The configuration is otherwise what other nodes rely on; it takes a restart.
void reload_log_level(const std::string& path) {
  v1::LmConfig config;
  auto status = load_config(path, &config);
  if (status.ok()) {
    apply_defaults(config);
    status = set_log_level(config.log().level());
  }
  if (!status.ok()) return log_error("reload_failed", "reason", std::string(status.message()));
  log_info("reloaded", "log_level", config.log().level());
}

// Each denial is counted, logged and recorded.
std::function<void(const Authorizer::Denial&)> make_denial_recorder(boost::asio::io_context& io, Metrics& metrics,
                                                                    Engine& engine) {
  return [&io, &metrics, &engine](const Authorizer::Denial& denial) {
    boost::asio::post(io, [&metrics, &engine, denial] {
      engine.record_denial(as_request(denial.caller, denial.method, {}), denial.rule + ": " + denial.text);
      metrics.counter("kedge_lm_denials_total", "Calls that were not authorized, by rule", {{"rule", denial.rule}})
          .Increment();
      log_warning("denied", "rule", denial.rule, "who", denial.caller.name(), "serial", denial.caller.serial, "peer",
                  denial.caller.peer, "method", denial.method, "reason", denial.text);
    });
  };
}

// Of new connections the TLS handshake sees to it.
void apply_revocations(const TransportSecurity& security, Server& server, Engine& engine) {
  if (security.insecure_plaintext || security.tls.crl_directory.empty()) return;
  auto serials = read_revoked_serials(security.tls.crl_directory);
  if (!serials.ok()) return log_error("revocations_unread", "reason", std::string(serials.status().message()));
  log_info("revocations", "certificates", serials->size());
  server.authorizer().set_revoked(*std::move(serials));
  engine.close_revoked_sessions();
}

int run_doctor(const std::string& path, const absl::StatusOr<Configuration>& configuration) {
  set_log_level(LogLevel::kError);
  Doctor doctor("kedge-lm");
  if (configuration.ok()) {
    doctor.ok("configuration", path);
    examine(configuration->config, doctor);
  } else {
    doctor.problem("configuration", std::string(configuration.status().message()), "mend it");
  }
  std::printf("%s\n", doctor.to_json().c_str());
  return kExitOk;
}

int run(const std::string& path, const Configuration& configuration) {
  const auto& config = configuration.config;
  warn_of_excess({});
  const auto begun = std::chrono::steady_clock::now();
  auto store = RocksDbStore::open(config.data_directory());
  if (!store.ok()) return fail(store.status(), kExitRuntimeError);
  const std::chrono::duration<double> opening = std::chrono::steady_clock::now() - begun;
  log_info("store_opened", "directory", config.data_directory(), "seconds", fmt::format("{:.3f}", opening.count()));

  boost::asio::io_context io(1);
  Metrics metrics;
  std::unique_ptr<MetricsServer> metrics_server;
  if (!config.metrics().listen().empty()) {
    auto started = MetricsServer::start(io, config.metrics().listen(), metrics);
    if (!started.ok()) return fail(started.status(), kExitRuntimeError);
    metrics_server = std::move(*started);
  }
  Engine engine(io, configuration.settings, **store, metrics);
  if (auto s = engine.start(); !s.ok()) return fail(s, kExitRuntimeError);
  const auto security = make_transport_security(config.insecure_plaintext(), config.tls());
  if (const auto own = check_transport_security(security); !own.ok()) {
    return fail(annotate(own.status(), path + ": tls"), kExitBadConfiguration);
  }
  auto server = Server::start(io, engine, config.listen(), security, make_denial_recorder(io, metrics, engine),
                              configuration.settings.limits);
  if (!server.ok()) return fail(server.status(), kExitRuntimeError);
  CertificateMonitor certificate(io, security, metrics);
  apply_revocations(security, **server, engine);

  std::thread farewell;
  boost::asio::signal_set stop(io, SIGTERM, SIGINT);
  stop.async_wait([&](const boost::system::error_code& error, int) {
    if (error) return;
    notify_service_manager("STOPPING=1");
    log_info("stopping");
    engine.stop();
    farewell = std::thread([&] {
      (*server)->shut_down();
      boost::asio::post(io, [&] { io.stop(); });
    });
  });
  boost::asio::signal_set reload(io, SIGHUP);
  std::function<void()> wait_for_reload = [&] {
    reload.async_wait([&](const boost::system::error_code& error, int) {
      if (error) return;
      reload_log_level(path);
      certificate.check();
      apply_revocations(security, **server, engine);
      wait_for_reload();
    });
  };
  wait_for_reload();

  log_info("ready", "listen", config.listen(), "port", (*server)->port(), "access_routers",
           engine.machine().known_access_routers(), "version", kVersion);
  notify_service_manager("READY=1");
  io.run();
  farewell.join();
  // Commits still under way are written before the engine, which their answers name, goes.
  store->reset();
  log_info("stopped");
  return kExitOk;
}

int restore(const std::string& file, bool force, const v1::LmConfig& config) {
  const auto restored = restore_store(file, config.data_directory(), force, now_system());
  if (!restored.ok()) return fail(restored.status(), kExitRuntimeError);
  const auto& revision = restored->backup.revision();
  auto made_at = restored->backup.made_at();
  made_at.set_nanos(0);
  std::printf("%s: restored from %s: %llu entries as of revision %llu.%llu, %s; epoch %llu\n",
              config.data_directory().c_str(), file.c_str(), static_cast<unsigned long long>(restored->entries),
              static_cast<unsigned long long>(revision.epoch()), static_cast<unsigned long long>(revision.revision()),
              google::protobuf::util::TimeUtil::ToString(made_at).c_str(),
              static_cast<unsigned long long>(restored->epoch));
  if (!restored->moved_to.empty()) std::printf("what was there before is in %s\n", restored->moved_to.c_str());
  return kExitOk;
}

int main(int argc, char** argv) {
  CLI::App app{"Kedge's location management server: keeps the bindings of mobile nodes and orders their moves."};
  std::string path;
  bool check = false;
  app.add_option("--config", path, "Configuration file (YAML)")->required();
  app.add_flag("--check", check, "Check the configuration and exit");
  bool doctor = false;
  app.add_flag("--doctor", doctor,
               "Look at all that the LM relies on, print findings as JSON, and exit (kedgectl doctor)");
  std::string backup;
  bool force = false;
  auto* restores =
      app.add_option("--restore", backup, "Make the store anew from this backup (kedgectl backup) and exit")
          ->type_name("FILE");
  app.add_flag("--force", force, "With --restore: move a store that is there already aside")->needs(restores);
  app.set_version_flag("--version", kVersion);
  app.footer("Exit codes: 0 stopped as asked, 1 error while running, 2 bad configuration or command line.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitBadConfiguration;
  }
  const auto configuration = read_configuration(path);
  if (doctor) return run_doctor(path, configuration);
  if (!configuration.ok()) return fail(configuration.status(), kExitBadConfiguration);
  if (check) {
    const auto& config = configuration->config;
    const auto security = make_transport_security(config.insecure_plaintext(), config.tls());
    if (const auto own = check_transport_security(security); !own.ok()) {
      return fail(annotate(own.status(), path + ": tls"), kExitBadConfiguration);
    }
    std::printf("%s: ok\n", path.c_str());
    return kExitOk;
  }
  if (restores->count() > 0) return restore(backup, force, configuration->config);
  return run(path, *configuration);
}

}  // namespace
}  // namespace kedge::lm

int main(int argc, char** argv) { return kedge::lm::main(argc, argv); }
