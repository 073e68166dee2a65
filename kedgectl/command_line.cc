#include "kedgectl/command_line.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <memory>

#include "CLI/CLI.hpp"
#include "common/ipv6.h"
#include "common/link_layer_address.h"
#include "fmt/format.h"
#include "google/protobuf/util/time_util.h"
#include "kedgectl/duration.h"
#include "kedgectl/policy_arguments.h"

namespace kedge::kedgectl {
namespace {

constexpr const char* kExamples = R"(Examples:
  kedgectl status                              is the server well, how much does it hold
  kedgectl nodes                               access routers and the health of their speakers
  kedgectl bindings --ar ar2                   every prefix whose mobile node is attached to ar2
  kedgectl binding 2001:db8:8818:1::5          where the node with this address is, and who holds what for it
  kedgectl watch --prefix 2001:db8:8818:1::/64 each step of this prefix's moves, as it happens
  kedgectl policy set --mn 02:00:00:00:00:11 mode=redirect
  kedgectl node drain ar1                      no new mobile nodes there, and its anchors move away
  kedgectl backup /var/backups/kedge-lm        for kedge-lm --restore
  kedgectl doctor                              what is wrong on this access router, or on the LM's host
  kedgectl pki issue speaker/ar1               a certificate for an access router
  kedgectl -o json bindings | jq -r '.bindings[].prefix'

)";

constexpr const char* kBindingExamples = R"(Examples:
  kedgectl binding 2001:db8:8818:1::/64
  kedgectl binding 2001:db8:8818:1::5          an address inside will do

)";

constexpr const char* kBindingsExamples = R"(Examples:
  kedgectl bindings
  kedgectl bindings --ar ar2
  kedgectl bindings --mn-id 02:00:00:00:00:11 -o json

)";

constexpr const char* kWatchExamples = R"(Examples:
  kedgectl watch                               from now on, until Ctrl-C
  kedgectl watch --from-start --count 20       the first 20 events that the server still keeps
  kedgectl watch --after 4711 --follow         go on after event 4711, also through restarts of the server
  kedgectl watch -o json | jq -c 'select(.type == "EVENT_TYPE_SETTLED")'

)";

constexpr const char* kPolicyExamples = R"(Examples:
  kedgectl policy set --mn 02:00:00:00:00:11 mode=redirect direct_uplink=true
  kedgectl policy set --mn 02:00:00:00:00:11 fixed_prefixes=2001:db8:1:f0::/64@ar1 allowed_ars=ar1,ar2
  kedgectl policy set --mn 02:00:00:00:00:21 mobile_network_prefixes=2001:db8:1:f00::/56@ar1    it is a mobile router
  kedgectl policy set --default relocate_after=30s serve_unknown=false
  kedgectl policy set --ar ar2 mode=             inherited again
  kedgectl policy show 02:00:00:00:00:11         what holds for this node, and which scope says so
  kedgectl policy delete --ar ar2

)";

constexpr const char* kNodeExamples = R"(Examples:
  kedgectl node drain ar1                      progress: kedgectl nodes
  kedgectl node undrain ar1

)";

constexpr const char* kPkiExamples = R"(Examples:
  kedgectl pki init                            a certificate authority, in ./kedge-authority
  kedgectl pki issue lm/lm1 --out /etc/kedge/pki
  kedgectl pki issue speaker/ar1 --out ar1-pki copy the folder to ar1 as /etc/kedge/pki
  kedgectl pki issue operator/alice --out ~/.kedge --days 90
  kedgectl pki renew /etc/kedge/pki            a new key and certificate; daemons take it up by themselves
  kedgectl pki revoke speaker/ar1              lost or stolen: worth nothing from now on
  kedgectl pki show                            all that were issued

)";

constexpr const char* kFrrConfigExamples = R"(Examples:
  kedgectl frr-config --ar ar1 --reflector 2001:db8:c0::1 --password-file bgp-secret
  kedgectl frr-config --reflector 2001:db8:c0::1            of the reflector with this address
  vtysh -f FILE                                             take it over; then: write

)";

constexpr const char* kIpsecConfigExamples = R"(Examples:
  kedgectl ipsec-config --ar ar1 >/etc/swanctl/conf.d/kedge.conf
  kedgectl ipsec-config >/etc/swanctl/conf.d/kedge.conf     of the LM
  swanctl --load-all                                        take it over

)";

constexpr const char* kStationExamples = R"(Examples, on an access router:
  kedgectl station authorize 02:00:5e:00:00:01 --interface eth2 --identity alice --for 1h
  kedgectl station revoke 02:00:5e:00:00:01 --interface eth2    it is detached
  kedgectl station list

)";

constexpr const char* kAuditExamples = R"(Examples:
  kedgectl audit --last 20                     the last 20 changes and refusals
  kedgectl audit --who alice --action SetPolicy
  kedgectl audit --subject 2001:db8:8818:1::/64
  kedgectl audit --refused --since 2026-01-02T03:04:05Z
  kedgectl audit --after 4711 -o json >>trail  one object a line; go on after record 4711

)";

constexpr const char* kDoctorExamples = R"(Examples:
  kedgectl doctor                              as root: the packet filter and FRR's sockets are looked at too
  kedgectl doctor -o json | jq -r '.findings[] | select(.result == "RESULT_PROBLEM") | .text'

)";

constexpr const char* kBackupExamples = R"(Examples:
  kedgectl backup /var/backups/kedge-lm-$(date +%F)
  kedgectl backup - | ssh vault 'cat >kedge-lm'

)";

constexpr const char* kExitCodes =
    R"(Data goes to standard output, messages to standard error. JSON has the names of the API's fields; 64-bit numbers are strings.

Exit codes:
  0    done
  1    the server refused or failed, doctor found a problem, or standard output cannot be written
  2    mistake on the command line
  3    the server cannot be reached, or went away during watch
  4    not found
  130  ended by Ctrl-C or SIGTERM)";

// Examples come before the list of options.
class ExamplesFirst final : public CLI::Formatter {
 public:
  explicit ExamplesFirst(std::string examples) : examples_(std::move(examples)) {}
  std::string make_usage(const CLI::App* app, std::string name) const override {
    return "\n" + examples_ + CLI::Formatter::make_usage(app, std::move(name));
  }

 private:
  std::string examples_;
};

std::string canonical_target(const std::string& text) {
  if (text.find('/') == std::string::npos) {
    const auto address = Ipv6Address::parse(text);
    if (!address.ok()) {
      throw CLI::ValidationError(fmt::format("'{}' is neither an IPv6 address nor a prefix", text));
    }
    return address->to_string();
  }
  const auto prefix = Ipv6Prefix::parse(text);
  if (!prefix.ok()) throw CLI::ValidationError(std::string(prefix.status().message()));
  return prefix->to_string();
}

// Link-layer addresses are compared as text; other kinds of identity stay as they are.
std::string canonical_mn_id(const std::string& text) {
  const auto address = LinkLayerAddress::parse(text);
  return address.ok() ? address->to_string() : text;
}

// CLI11 takes "-1" for the greatest number.
std::uint64_t whole_number(std::string_view option, const std::string& text, std::uint64_t least) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least) {
    throw CLI::ValidationError(fmt::format("{}: '{}' is no whole number of {} or more", option, text, least));
  }
  return value;
}

CLI::Option* add_target(CLI::App* app, const char* name, std::string* value, const char* help) {
  return app->add_option_function<std::string>(
      name, [value](const std::string& text) { *value = canonical_target(text); }, help);
}

CLI::Option* add_mn_id(CLI::App* app, std::string* value, const char* help) {
  return app
      ->add_option_function<std::string>(
          "--mn-id", [value](const std::string& text) { *value = canonical_mn_id(text); }, help)
      ->type_name("ID");
}

class Parser {
 public:
  Parser() {
    app_.formatter(std::make_shared<ExamplesFirst>(kExamples));
    app_.footer(kExitCodes);
    app_.require_subcommand(1);
    app_.set_version_flag("--version", "kedgectl " KEDGE_VERSION);
    add_global_options();
    add_commands();
  }

  CommandLine parse(std::vector<std::string> arguments) {
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    app_.parse(std::move(arguments));
    if (server_.empty()) throw CLI::ValidationError("--server is empty; give it as [address]:port");
    if (!(timeout_ >= 0.001 && timeout_ <= 86'400)) throw CLI::ValidationError("--timeout is 0.001 to 86400 seconds");
    if (from_start_) watch_.after = 0;
    line_.global.server = server_;
    line_.global.format = format_ == "json" ? OutputFormat::kJson : OutputFormat::kTable;
    line_.global.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(timeout_ * 1000));
    if (bindings_app_->parsed()) line_.command = bindings_;
    if (binding_app_->parsed()) line_.command = binding_;
    if (watch_app_->parsed()) line_.command = watch_;
    if (nodes_app_->parsed()) line_.command = NodesCommand{};
    if (policy_list_->parsed()) line_.command = PolicyListCommand{};
    if (policy_show_->parsed()) line_.command = show_;
    if (policy_set_->parsed()) line_.command = read_set();
    if (policy_delete_->parsed()) line_.command = PolicyDeleteCommand{scope()};
    if (drain_->parsed()) line_.command = DrainCommand{node_, true};
    if (undrain_->parsed()) line_.command = DrainCommand{node_, false};
    if (detach_->parsed()) line_.command = DetachCommand{mn_id_};
    if (pki_->parsed()) line_.command = read_pki();
    if (frr_config_app_->parsed()) line_.command = frr_config_;
    if (ipsec_config_app_->parsed()) line_.command = ipsec_config_;
    if (station_app_->parsed()) line_.command = station_;
    if (doctor_app_->parsed()) line_.command = read_doctor();
    if (backup_app_->parsed()) line_.command = backup_;
    if (audit_app_->parsed()) line_.command = audit_;
    return line_;
  }

  // Of the command that was being read, else of all.
  std::string help() const { return app_.help(); }
  bool has_command() const { return !app_.get_subcommands().empty(); }

 private:
  void add_global_options() {
    app_.add_option("-s,--server", server_, "Address of kedge-lm")
        ->envname("KEDGECTL_SERVER")
        ->type_name("[ADDRESS]:PORT")
        ->capture_default_str();
    app_.add_flag("--insecure-plaintext", line_.global.insecure_plaintext,
                  "Connect without TLS: anyone on the path can read and forge what is exchanged")
        ->envname("KEDGECTL_INSECURE_PLAINTEXT");
    app_.add_option("--tls", line_.global.tls, "Folder with ca.pem, certificate.pem and key.pem")
        ->envname("KEDGECTL_TLS")
        ->type_name("FOLDER")
        ->capture_default_str();
    app_.add_option("-o,--output", format_, "table, or json")
        ->check(CLI::IsMember({"table", "json"}))
        ->type_name("FORMAT")
        ->capture_default_str();
    app_.add_option("--timeout", timeout_,
                    "Longest wait for an answer, or the next piece of a backup, in seconds; watch waits for ever")
        ->type_name("SECONDS")
        ->capture_default_str();
    app_.add_flag("-v,--verbose", line_.global.verbose, "Log what is done, warnings included, on standard error");
  }

  CLI::App* add_command(const char* name, const char* what, const char* examples) {
    auto* command = app_.add_subcommand(name, what)->fallthrough();
    command->formatter(std::make_shared<ExamplesFirst>(examples));
    command->footer("Options of every command: kedgectl --help");
    return command;
  }

  v1::PolicyScope scope() const {
    v1::PolicyScope scope;
    const int given = (mn_id_.empty() ? 0 : 1) + (ar_.empty() ? 0 : 1) + (defaults_ ? 1 : 0);
    if (given != 1) throw CLI::ValidationError("one of --mn, --ar and --default is needed");
    if (!mn_id_.empty()) scope.set_mn_id(mn_id_);
    if (!ar_.empty()) scope.set_ar(ar_);
    if (defaults_) scope.set_defaults(true);
    return scope;
  }

  PolicySetCommand read_set() const {
    PolicySetCommand command;
    *command.request.mutable_scope() = scope();
    const auto status = read_policy_arguments(values_, &command.request);
    if (!status.ok()) throw CLI::ValidationError(std::string(status.message()));
    return command;
  }

  CLI::Option* add_mn_target(CLI::App* app, std::string* value) {
    return app
        ->add_option_function<std::string>(
            "mn", [value](const std::string& text) { *value = canonical_mn_id(text); }, "The mobile node")
        ->required()
        ->type_name("ID");
  }

  void add_scope(CLI::App* app) {
    app->add_option_function<std::string>(
           "--mn", [this](const std::string& text) { mn_id_ = canonical_mn_id(text); }, "Of this mobile node")
        ->type_name("ID");
    app->add_option("--ar", ar_, "Of this access router")->type_name("NAME");
    app->add_flag("--default", defaults_, "Of all others");
  }

  CLI::App* add_part(CLI::App* app, const char* name, const char* what) {
    return app->add_subcommand(name, what)->fallthrough();
  }

  void add_changes() {
    auto* policy = add_command("policy", "What is decided about mobile nodes", kPolicyExamples);
    policy->require_subcommand(1);
    policy_list_ = add_part(policy, "list", "Policies that are set");
    policy_show_ = add_part(policy, "show", "What holds for a mobile node, and which scope says so");
    add_mn_target(policy_show_, &show_.mn_id);
    policy_show_->add_option("--ar", show_.ar, "As if it were attached there")->type_name("NAME");
    policy_set_ = add_part(policy, "set", "Set some fields; others stay");
    add_scope(policy_set_);
    policy_set_->add_option("values", values_, "Fields; without a value: inherited again")->type_name("KEY=VALUE");
    policy_delete_ = add_part(policy, "delete", "Delete the policy of a scope");
    add_scope(policy_delete_);

    auto* node = add_command("node", "Take an access router out of service, and back", kNodeExamples);
    node->require_subcommand(1);
    drain_ = add_part(node, "drain", "No new mobile nodes, and anchors move away");
    undrain_ = add_part(node, "undrain", "Back in service");
    for (auto* app : {drain_, undrain_}) {
      app->add_option("ar", node_, "The access router")->required()->type_name("NAME");
    }
    detach_ = add_command("detach", "End a mobile node's attachment; it may come again", "");
    add_mn_target(detach_, &mn_id_);
  }

  std::chrono::hours validity(int otherwise) const {
    if (days_ < 0 || days_ > 36'500) throw CLI::ValidationError("--days is 1 to 36500");
    return std::chrono::hours(24) * (days_ == 0 ? otherwise : days_);
  }

  // "speaker/ar1", or the whole URI.
  static Identity identity_from(const std::string& text) {
    const auto identity = parse_identity(text.starts_with("kedge://") ? text : "kedge://" + text);
    if (!identity.ok()) throw CLI::ValidationError(std::string(identity.status().message()));
    return *identity;
  }

  PkiCommand read_pki() const {
    if (pki_init_->parsed()) return PkiInitCommand{authority_, name_, validity(3650), force_};
    if (pki_issue_->parsed()) {
      return PkiIssueCommand{authority_, identity_from(identity_), folder_, validity(365), force_};
    }
    if (pki_renew_->parsed()) return PkiRenewCommand{authority_, folder_, validity(365)};
    if (pki_revoke_->parsed()) return PkiRevokeCommand{authority_, identity_from(identity_)};
    return PkiShowCommand{folder_, authority_};
  }

  void add_pki() {
    pki_ = add_command("pki", "Certificates for the LM, access routers and operators", kPkiExamples);
    pki_->require_subcommand(1);
    pki_init_ = add_part(pki_, "init", "Make a certificate authority");
    pki_init_->add_option("--name", name_, "Its name")->capture_default_str();
    pki_issue_ = add_part(pki_, "issue", "Make a key, and a certificate for it");
    pki_renew_ = add_part(pki_, "renew", "A new key and certificate of the same identity");
    pki_revoke_ = add_part(pki_, "revoke", "End the validity of all certificates of an identity");
    pki_show_ = add_part(pki_, "show", "What a certificate says, or all that the authority has issued");
    for (auto* app : {pki_issue_, pki_revoke_}) {
      app->add_option("identity", identity_, "lm/NAME, speaker/AR, operator/NAME, viewer/NAME, mn/ID or proxy/NAME")
          ->required()
          ->type_name("ROLE/NAME");
    }
    pki_issue_->add_option("--out", folder_, "Folder to write to; by default in the authority's")->type_name("FOLDER");
    pki_renew_->add_option("folder", folder_, "Folder with the certificate")->required()->type_name("FOLDER");
    pki_show_->add_option("path", folder_, "A certificate, or a folder with one")->type_name("PATH");
    for (auto* app : {pki_init_, pki_issue_, pki_renew_}) {
      app->add_option("--days", days_, "How long it is valid")->type_name("DAYS");
    }
    for (auto* app : {pki_init_, pki_issue_}) app->add_flag("--force", force_, "Replace what is there");
    for (auto* app : {pki_init_, pki_issue_, pki_renew_, pki_revoke_, pki_show_}) {
      app->add_option("--authority", authority_, "Folder of the certificate authority")
          ->envname("KEDGECTL_AUTHORITY")
          ->type_name("FOLDER")
          ->capture_default_str();
    }
  }

  static void add_lm_config(CLI::App* app, std::string* path) {
    app->add_option("--lm-config", *path, "The LM's configuration file")->type_name("FILE")->capture_default_str();
  }

  void add_frr_config() {
    frr_config_app_ = add_command(
        "frr-config", "FRR's configuration for Kedge: filters, levels of preference, sessions", kFrrConfigExamples);
    auto* app = frr_config_app_;
    add_lm_config(app, &frr_config_.lm_config);
    app->add_option("--ar", frr_config_.ar, "Of this access router; by default of the reflector")->type_name("NAME");
    app->add_option("--reflector", frr_config_.reflectors, "Address of a route reflector; several may be given")
        ->required()
        ->type_name("ADDRESS");
    app->add_option("--as", frr_config_.as_number, "AS number")->type_name("ASN")->capture_default_str();
    app->add_option("--router-id", frr_config_.router_id, "BGP identifier; by default by place in the configuration")
        ->check(CLI::ValidIPV4)
        ->type_name("A.B.C.D");
    app->add_option("--injector", frr_config_.injector, "As frr.injector of the speaker: northbound or kernel")
        ->check(CLI::IsMember({"northbound", "kernel"}))
        ->type_name("NAME")
        ->capture_default_str();
    app->add_option("--base", frr_config_.local_preference_base, "Local preference of level k is BASE + k")
        ->type_name("BASE")
        ->capture_default_str();
    app->add_option("--hops", frr_config_.hops, "Most routers on the way of a session (RFC 5082); 0: not checked")
        ->check(CLI::Range(0, 254))
        ->type_name("N")
        ->capture_default_str();
    app->add_option("--password-file", frr_config_.password_file, "First line: secret of the sessions (RFC 2385)")
        ->type_name("FILE");
    app->add_option("--maximum-prefixes", frr_config_.maximum_prefixes, "The reflector warns from so many on")
        ->check(CLI::PositiveNumber)
        ->type_name("N")
        ->capture_default_str();
  }

  void add_ipsec_config() {
    ipsec_config_app_ = add_command(
        "ipsec-config", "strongSwan's configuration for Kedge: signalling and tunnels in ESP", kIpsecConfigExamples);
    auto* app = ipsec_config_app_;
    add_lm_config(app, &ipsec_config_.lm_config);
    app->add_option("--ar", ipsec_config_.ar, "Of this access router; by default of the LM")->type_name("NAME");
    app->add_option("--lm-name", ipsec_config_.lm_name, "The LM's name in its certificate")
        ->type_name("NAME")
        ->capture_default_str();
    app->add_option("--lm-address", ipsec_config_.lm_address, "Of the LM; by default where it listens")
        ->type_name("ADDRESS");
    app->add_option("--pki", ipsec_config_.pki, "Folder of the node's certificate")
        ->type_name("FOLDER")
        ->capture_default_str();
    app->add_flag("!--no-tunnels", ipsec_config_.tunnels, "Leave the tunnels between access routers as they are");
  }

  void add_station() {
    station_app_ = add_command("station", "Vouch for stations of an access router's links, as an authenticator does",
                               kStationExamples);
    station_app_->require_subcommand(1);
    station_app_->add_option("--socket", station_.socket, "The speaker's access.authenticator_socket")
        ->envname("KEDGECTL_AUTHENTICATOR")
        ->type_name("PATH")
        ->capture_default_str();
    using Action = StationCommand::Action;
    const auto add = [this](const char* name, const char* what, Action action) {
      auto* app = add_part(station_app_, name, what);
      app->callback([this, action] { station_.action = action; });
      return app;
    };
    auto* authorize = add("authorize", "It has authenticated itself", Action::kAuthorize);
    auto* revoke = add("revoke", "It has left, or is not trusted any more", Action::kRevoke);
    add("list", "All that are vouched for", Action::kList);
    for (auto* app : {authorize, revoke}) {
      app->add_option_function<std::string>(
             "station", [this](const std::string& text) { station_.link_layer_address = canonical_mn_id(text); },
             "Its link-layer address")
          ->required()
          ->type_name("MAC");
      app->add_option("--interface", station_.interface, "The access interface")->required()->type_name("NAME");
    }
    authorize->add_option("--identity", station_.identity, "Who it is, for logs")->type_name("NAME");
    authorize
        ->add_option_function<std::string>(
            "--for",
            [this](const std::string& text) {
              station_.valid_for = read_duration(text);
              if (!station_.valid_for)
                throw CLI::ValidationError(fmt::format("--for: '{}' is no time such as 1h", text));
            },
            "How long; by default until it is revoked")
        ->type_name("TIME");
  }

  DoctorCommand read_doctor() const {
    DoctorCommand command = doctor_;
    command.speaker_named = doctor_app_->count("--speaker-config") > 0;
    command.lm_named = doctor_app_->count("--lm-config") > 0;
    return command;
  }

  void add_doctor() {
    doctor_app_ =
        add_command("doctor", "What is wrong on this host, and what to do; 1 when there is a problem", kDoctorExamples);
    doctor_app_->add_option("--speaker-config", doctor_.speaker_config, "The speaker's configuration file")
        ->type_name("FILE")
        ->capture_default_str();
    add_lm_config(doctor_app_, &doctor_.lm_config);
  }

  void add_backup() {
    backup_app_ =
        add_command("backup", "Write the server's store into a file, for kedge-lm --restore", kBackupExamples);
    backup_app_->add_option("file", backup_.file, "The file; - for standard output")->required()->type_name("FILE");
    backup_app_->add_flag("--force", backup_.force, "Replace a file that is there already");
  }

  CLI::Option* add_audit_time(const char* name, google::protobuf::Timestamp* (v1::AuditRequest::*field)(),
                              const char* help) {
    return audit_app_
        ->add_option_function<std::string>(
            name,
            [this, name, field](const std::string& text) {
              google::protobuf::Timestamp time;
              if (!google::protobuf::util::TimeUtil::FromString(text, &time)) {
                throw CLI::ValidationError(fmt::format("{}: '{}' is no time such as 2026-01-02T03:04:05Z", name, text));
              }
              *(audit_.request.*field)() = time;
            },
            help)
        ->type_name("TIME");
  }

  void add_audit() {
    audit_app_ = add_command("audit", "Who has changed what, and who was refused", kAuditExamples);
    const auto add_text = [this](const char* name, void (v1::AuditRequest::*set)(const std::string&),
                                 const char* help) {
      audit_app_
          ->add_option_function<std::string>(
              name, [this, set](const std::string& text) { (audit_.request.*set)(text); }, help)
          ->type_name("TEXT");
    };
    add_text("--who", &v1::AuditRequest::set_who<const std::string&>, "Identities that have this in them");
    add_text("--action", &v1::AuditRequest::set_action<const std::string&>, "Methods that have this in them");
    add_text("--subject", &v1::AuditRequest::set_subject<const std::string&>, "A prefix, mobile node or access router");
    add_audit_time("--since", &v1::AuditRequest::mutable_since, "Not before");
    add_audit_time("--until", &v1::AuditRequest::mutable_until, "Not after");
    audit_app_->add_flag_callback(
        "--refused", [this] { audit_.request.set_refused(true); }, "Only what was refused");
    audit_app_
        ->add_option_function<std::string>(
            "--after",
            [this](const std::string& text) { audit_.request.set_after_id(whole_number("--after", text, 0)); },
            "Records with a greater id only")
        ->type_name("ID");
    audit_app_
        ->add_option_function<std::string>(
            "--last",
            [this](const std::string& text) {
              audit_.request.set_last(static_cast<std::uint32_t>(
                  std::min<std::uint64_t>(whole_number("--last", text, 1), std::numeric_limits<std::uint32_t>::max())));
            },
            "The last so many of them")
        ->type_name("N");
  }

  void add_commands() {
    add_audit();
    add_changes();
    add_pki();
    add_frr_config();
    add_ipsec_config();
    add_station();
    add_backup();
    add_doctor();
    add_command("status", "The server's state in a few lines", "");
    nodes_app_ = add_command("nodes", "Access routers, their speakers' health and load", "");

    bindings_app_ = add_command("bindings", "All bindings, or those that match every filter", kBindingsExamples);
    bindings_app_->add_option("--ar", bindings_.ar, "Attached to this access router")->type_name("NAME");
    add_mn_id(bindings_app_, &bindings_.mn_id, "Of this mobile node");

    binding_app_ = add_command("binding", "One binding with all that is held for it", kBindingExamples);
    add_target(binding_app_, "target", &binding_.prefix, "The binding's prefix, or anything inside of it")
        ->required()
        ->type_name("PREFIX-or-ADDRESS");

    watch_app_ = add_command("watch", "Events as they happen", kWatchExamples);
    auto* after =
        watch_app_
            ->add_option_function<std::string>(
                "--after", [this](const std::string& text) { watch_.after = whole_number("--after", text, 0); },
                "Events with a greater id only")
            ->type_name("ID");
    watch_app_->add_flag("--from-start", from_start_, "Begin with all events that the server still keeps")
        ->excludes(after);
    add_target(watch_app_, "--prefix", &watch_.prefix, "Of this prefix")->type_name("PREFIX");
    add_mn_id(watch_app_, &watch_.mn_id, "Of this mobile node");
    watch_app_->add_option("--ar", watch_.ar, "Of this access router")->type_name("NAME");
    watch_app_
        ->add_option_function<std::string>(
            "--count", [this](const std::string& text) { watch_.count = whole_number("--count", text, 1); },
            "End after so many events")
        ->type_name("N");
    watch_app_->add_flag("--follow", watch_.follow, "Connect again when the server goes away, and miss nothing");
  }

  CLI::App app_{"kedgectl: look at a Kedge location management server, and tell it what to do", "kedgectl"};
  CLI::App* nodes_app_ = nullptr;
  CLI::App* backup_app_ = nullptr;
  CLI::App* doctor_app_ = nullptr;
  CLI::App* policy_list_ = nullptr;
  CLI::App* policy_show_ = nullptr;
  CLI::App* policy_set_ = nullptr;
  CLI::App* policy_delete_ = nullptr;
  CLI::App* drain_ = nullptr;
  CLI::App* undrain_ = nullptr;
  CLI::App* detach_ = nullptr;
  CLI::App* pki_ = nullptr;
  CLI::App* pki_init_ = nullptr;
  CLI::App* pki_issue_ = nullptr;
  CLI::App* pki_renew_ = nullptr;
  CLI::App* pki_revoke_ = nullptr;
  CLI::App* pki_show_ = nullptr;
  CLI::App* frr_config_app_ = nullptr;
  CLI::App* ipsec_config_app_ = nullptr;
  CLI::App* station_app_ = nullptr;
  CLI::App* audit_app_ = nullptr;
  AuditCommand audit_;
  FrrConfigCommand frr_config_;
  IpsecConfigCommand ipsec_config_;
  StationCommand station_;
  DoctorCommand doctor_;
  std::string authority_ = "kedge-authority";
  std::string name_ = "Kedge";
  std::string identity_;
  std::string folder_;
  int days_ = 0;
  bool force_ = false;
  PolicyShowCommand show_;
  std::string mn_id_;
  std::string ar_;
  std::string node_;
  bool defaults_ = false;
  std::vector<std::string> values_;
  CLI::App* bindings_app_ = nullptr;
  CLI::App* binding_app_ = nullptr;
  CLI::App* watch_app_ = nullptr;
  CommandLine line_;
  std::string server_ = "[::1]:8818";
  std::string format_ = "table";
  double timeout_ = 10;
  bool from_start_ = false;
  BindingsCommand bindings_;
  BindingCommand binding_;
  WatchCommand watch_;
  BackupCommand backup_;
};

}  // namespace

std::variant<CommandLine, Message> parse_command_line(std::vector<std::string> arguments) {
  Parser parser;
  try {
    return parser.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    return Message{ExitCode::kOk, parser.help()};
  } catch (const CLI::CallForVersion& version) {
    return Message{ExitCode::kOk, std::string(version.what()) + "\n"};
  } catch (const CLI::ParseError& error) {
    const bool none = error.get_name() == "RequiredError" && !parser.has_command();
    const std::string what = none ? "a command is needed: status, nodes, bindings, binding, watch, policy, node, "
                                    "detach, audit, backup, doctor, pki, frr-config, ipsec-config or station"
                                  : error.what();
    return Message{ExitCode::kUsage, fmt::format("kedgectl: {}\nSee kedgectl --help.\n", what)};
  }
}

}  // namespace kedge::kedgectl
