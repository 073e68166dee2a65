// kedge-speaker: the agent beside FRR on an access router.
//
// FRR's northbound port is closed to others first, if it is used (packet_filter/). Then the wiring, producer ->
// consumer, all on one executor:
//   access plane   -- arrivals, departures --> controller -- Attach, Detach --> LM
//                  (through the authenticating access plane, which knows for whom an authenticator vouches)
//   LM             -- snapshot, records    --> controller -- routes --> forwarding plane (kernel)
//                                                         -- levels --> route injector (FRR's staticd, or zebra)
//                                                         -- watches --> best path observer (FRR's bgpd)
//                                                         -- prefixes --> access plane (RA)
//                                                         -- records  --> source guard -- sources --> access filter
//                                                         -- records  --> activity reporter -- prefixes --> activity
//                                                                         meter
//   activity meter -- what was used when   --> activity reporter -- Activity --> LM
//   access plane   -- links that went down --> source guard
//   planes         -- reached stages       --> controller -- acknowledgements --> LM
//
// SIGHUP reads log.level anew.
// Exit codes: 0 ended by SIGTERM or SIGINT, 1 failed while running, 2 wrong usage or configuration.

#include <linux/capability.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>

#include "CLI/CLI.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/signal_set.hpp"
#include "common/certificate_monitor.h"
#include "common/credentials.h"
#include "common/daemon.h"
#include "common/doctor.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/metrics_http.h"
#include "common/privileges.h"
#include "common/status.h"
#include "speaker/authenticator/authenticating_access_plane.h"
#include "speaker/authenticator/authenticator_server.h"
#include "speaker/config.h"
#include "speaker/controller/controller.h"
#include "speaker/doctor/doctor.h"
#include "speaker/kernel/anchor_routes.h"

namespace {

using namespace kedge;

int failed(std::string_view what, const absl::Status& status) {
  log_error(what, "error", status.ToString());
  return kExitRuntimeError;
}

// While staticd listens there the port stays closed.
int purge_northbound(const speaker::NorthboundGuardConfig& config) {
  if (!config.close) return kExitOk;
  const auto status = speaker::open_northbound(config.port);
  if (!absl::IsFailedPrecondition(status)) return status.ok() ? kExitOk : failed("purge_failed", status);
  log_warning("northbound_left_closed", "text", std::string(status.message()));
  return kExitOk;
}

// What another injector, of an earlier run, has left would keep FRR from what this one announces.
void remove_routes_of_kernel_injector(const speaker::Settings& settings) {
  if (settings.injector == speaker::InjectorKind::kKernel) return;
  const auto status = speaker::remove_anchor_routes(settings.kernel_injector.protocol);
  if (!status.ok()) log_warning("kernel_routes_not_removed", "error", status.ToString());
}

std::unique_ptr<speaker::RouteInjector> make_injector(boost::asio::any_io_executor executor,
                                                      const speaker::Settings& settings, std::uint32_t levels) {
  if (settings.injector == speaker::InjectorKind::kKernel) {
    auto config = settings.kernel_injector;
    config.levels = levels;
    return speaker::make_kernel_injector(executor, config);
  }
  return speaker::make_northbound_injector(executor, {settings.config.frr().northbound(), levels});
}

std::uint64_t random_number() {
  std::random_device device;
  return static_cast<std::uint64_t>(device()) << 32U | device();
}

// An MN that has moved away is gone when one that stayed would have been found to be: from the end of the overlap on.
std::chrono::milliseconds silence(const speaker::AccessPlaneConfig& access) {
  return access.overlap_guard + access.probe_after + 3 * access.probe_interval;
}

// The rest of the configuration takes a restart, which interrupts no forwarding.
void reload_log_level(const std::string& path) {
  const auto settings = speaker::load_settings(path);
  const auto status = settings.ok() ? set_log_level(settings->config.log().level()) : settings.status();
  if (!status.ok()) return log_error("reload_failed", "error", std::string(status.message()));
  log_info("reloaded", "log_level", settings->config.log().level());
}

int run_doctor(const std::string& path, const absl::StatusOr<speaker::Settings>& settings) {
  set_log_level(LogLevel::kError);
  Doctor doctor("kedge-speaker");
  if (settings.ok()) {
    doctor.ok("configuration", path);
    speaker::examine(*settings, doctor);
  } else {
    doctor.problem("configuration", std::string(settings.status().message()), "mend it");
  }
  std::cout << doctor.to_json() << "\n";
  return kExitOk;
}

int run(const std::string& path, const speaker::Settings& settings) {
  const auto& config = settings.config;
  // Never destroyed: calls that are under way when the process ends still post to it from gRPC's threads.
  static auto& io = *new boost::asio::io_context(1);
  const auto executor = io.get_executor();
  Metrics metrics;

  // Before all else: whoever reaches the port while it is open can configure staticd.
  std::unique_ptr<speaker::NorthboundGuard> northbound;
  if (settings.injector == speaker::InjectorKind::kNorthbound) {
    auto made = speaker::guard_northbound(executor, settings.northbound, metrics);
    if (!made.ok()) return failed("northbound_open", made.status());
    northbound = *std::move(made);
  }
  remove_routes_of_kernel_injector(settings);
  std::unique_ptr<MetricsServer> metrics_server;
  if (!config.metrics().listen().empty()) {
    auto server = MetricsServer::start(io, config.metrics().listen(), metrics);
    if (!server.ok()) return failed("metrics_failed", server.status());
    metrics_server = *std::move(server);
  }
  auto forwarding = speaker::make_kernel_forwarding_plane(executor, settings.forwarding);
  if (!forwarding.ok()) return failed("forwarding_plane_failed", forwarding.status());
  auto access = speaker::make_access_plane(executor, settings.access);
  if (!access.ok()) return failed("access_plane_failed", access.status());
  // Needed only to load the frame filter. Before any thread is started.
  if (const auto status = drop_capabilities({CAP_BPF}); !status.ok()) return failed("privileges_kept", status);
  warn_of_excess({CAP_NET_ADMIN, CAP_NET_RAW});
  speaker::AuthenticatingAccessPlane authenticating(executor, settings.access.interfaces, *std::move(access));
  std::unique_ptr<speaker::AccessFilter> filter;
  std::unique_ptr<speaker::SourceGuard> guard;
  if (config.access().source_guard()) {
    auto made = speaker::make_access_filter(settings.access_filter);
    if (!made.ok()) {
      return failed("access_filter_failed", annotate(made.status(), "access.source_guard (false does without it)"));
    }
    filter = *std::move(made);
    guard = std::make_unique<speaker::SourceGuard>(
        executor,
        speaker::SourceGuard::Config{
            .self = config.name(), .silence = silence(settings.access), .tunnel_sources = settings.tunnel_sources},
        *filter, authenticating, metrics);
  } else if (const auto status = speaker::remove_access_filter(); !status.ok()) {
    log_warning("access_filter_not_removed", "error", status.ToString());
  }
  auto observer = speaker::make_bgpd_observer(executor, settings.best_path);
  const auto security = make_transport_security(config.lm().insecure_plaintext(), config.lm().tls());
  auto channel = make_channel(config.lm().address(), security);
  if (!channel.ok()) return failed("lm_channel_failed", channel.status());
  CertificateMonitor certificate(io, security, metrics);

  const std::uint64_t incarnation = random_number();
  auto lm = speaker::make_lm_client(executor, *channel, {config.name(), incarnation, KEDGE_VERSION});
  std::unique_ptr<speaker::ActivityMeter> meter;
  std::unique_ptr<speaker::ActivityReporter> activity;
  if (auto made = speaker::make_activity_meter({settings.access.interfaces}); made.ok()) {
    meter = *std::move(made);
    activity = std::make_unique<speaker::ActivityReporter>(
        executor, speaker::ActivityReporter::Config{.self = config.name()}, *meter, *lm, metrics);
  } else {
    log_warning("activity_unseen", "error", made.status().ToString(), "effect", "no prefix ends for being idle");
  }
  speaker::Controller controller(
      executor, {config.name(), incarnation, config.frr().local_preference_base(), config.kernel().redirection()}, *lm,
      **forwarding, [&](std::uint32_t levels) { return make_injector(executor, settings, levels); }, *observer,
      authenticating, metrics, guard.get(), activity.get());

  boost::asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&](boost::system::error_code error, int signal) {
    if (error) return;
    log_info("stopping", "signal", signal, "effect", "the kernel goes on forwarding and FRR announcing");
    notify_service_manager("STOPPING=1");
    lm->stop();
    io.stop();
  });
  boost::asio::signal_set reload(io, SIGHUP);
  std::function<void()> wait_for_reload = [&] {
    reload.async_wait([&](boost::system::error_code error, int) {
      if (error) return;
      reload_log_level(path);
      certificate.check();
      wait_for_reload();
    });
  };
  wait_for_reload();
  if (const auto& socket = config.access().authenticator_socket(); !socket.empty()) {
    auto server = speaker::AuthenticatorServer::start(executor, authenticating, socket);
    if (!server.ok()) return failed("authenticator_failed", server.status());
    // Never destroyed, as the calls that are under way when the process ends.
    static_cast<void>(server->release());
  }
  lm->start();
  log_info("started", "name", config.name(), "version", KEDGE_VERSION, "incarnation", incarnation);
  notify_service_manager("READY=1");
  io.run();
  return kExitOk;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"kedge-speaker: moves the IP anchor of mobile nodes to this access router (RFC 8818)"};
  std::string path;
  bool check = false;
  bool purge = false;
  bool doctor = false;
  app.add_option("--config", path, "Configuration file (YAML)")->required();
  app.add_flag("--check", check, "Check the configuration and exit");
  app.add_flag("--doctor", doctor,
               "Look at all that the speaker relies on, print findings as JSON, and exit (kedgectl doctor)");
  app.add_flag("--purge", purge, "Remove all that kedge has put into the kernel, and exit");
  app.set_version_flag("--version", KEDGE_VERSION);
  app.footer("Exit codes: 0 ended by a signal, 1 failed while running, 2 wrong usage or configuration.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitBadConfiguration;
  }

  const auto settings = speaker::load_settings(path);
  if (doctor) return run_doctor(path, settings);
  if (!settings.ok()) {
    std::cerr << settings.status().message() << "\n";
    return kExitBadConfiguration;
  }
  if (const auto status = set_log_level(settings->config.log().level()); !status.ok()) return kExitBadConfiguration;
  if (check) {
    const auto& lm = settings->config.lm();
    const auto own = check_transport_security(make_transport_security(lm.insecure_plaintext(), lm.tls()));
    if (!own.ok()) {
      std::cerr << path << ": lm.tls: " << own.status().message() << "\n";
      return kExitBadConfiguration;
    }
    std::cout << path << ": ok\n";
    return kExitOk;
  }
  if (purge) {
    auto status = speaker::remove_all(settings->forwarding);
    status.Update(speaker::remove_anchor_routes(settings->kernel_injector.protocol));
    status.Update(speaker::remove_access_filter());
    status.Update(speaker::remove_activity_meter());
    if (!status.ok()) return failed("purge_failed", status);
    return purge_northbound(settings->northbound);
  }
  return run(path, *settings);
}
