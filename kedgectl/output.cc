#include "kedgectl/output.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "common/alarm.h"
#include "fmt/format.h"
#include "google/protobuf/util/json_util.h"
#include "kedgectl/format.h"
#include "kedgectl/policy_arguments.h"
#include "kedgectl/table.h"

namespace kedge::kedgectl {
namespace {

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

// A column of names and one of values, without titles.
class Properties {
 public:
  void add(std::string_view name, const std::string& value) {
    text_ += fmt::format("{:<13}{}\n", name, value.empty() ? "-" : printable(value));
  }
  void add_time(std::string_view name, bool present, const google::protobuf::Timestamp& time, SystemTime now) {
    if (!present) return add(name, "");
    const auto at = from_proto(time);
    add(name, fmt::format("{} ({} ago)", format_time(at, TimePrecision::kSeconds), format_age(at, now)));
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string age_of(bool present, const google::protobuf::Timestamp& time, SystemTime now) {
  return present ? format_age(from_proto(time), now) : "";
}

// "synced", or each part that is not, with what it says.
std::string summarize(const v1::SpeakerHealth& health) {
  std::vector<std::string> troubles;
  const auto check = [&troubles](std::string_view part, const std::string& text) {
    if (text != "synced") troubles.push_back(fmt::format("{}: {}", part, text.empty() ? "not reported" : text));
  };
  check("kernel", health.kernel());
  check("frr", health.frr());
  check("access", health.access());
  return troubles.empty() ? "synced" : join(troubles, "; ");
}

// RFC 8818, 2.
std::string kind_of(const v1::Binding& binding) { return binding.mobile_network() ? "MNP" : "HNP"; }

std::string holder_names(const v1::Binding& binding) {
  std::vector<std::string> names;
  for (const auto& holder : binding.holders()) names.push_back(holder.ar());
  return join(names, ",");
}

bool older(const v1::Generation& a, const v1::Generation& b) {
  return a.epoch() != b.epoch() ? a.epoch() < b.epoch() : a.revision() < b.revision();
}

// What the AR has acknowledged, and what is still waited for.
std::string describe(const v1::Holder& holder, const v1::Binding& binding) {
  std::vector<std::string> parts;
  if (holder.delivers()) parts.push_back("delivers");
  if (!holder.redirects_to().empty()) parts.push_back("redirects to " + holder.redirects_to());
  if (holder.unreachable()) parts.push_back("answers unreachable");
  if (holder.advertises_preference() != 0) {
    parts.push_back(fmt::format("advertises at {}", holder.advertises_preference()));
  }
  if (holder.superseded()) parts.push_back("superseded");
  if (holder.releasing()) parts.push_back("letting go");
  if (older(holder.generation(), binding.generation())) {
    parts.push_back(fmt::format("has not acknowledged {} yet", format_generation(binding.generation())));
  }
  return parts.empty() ? "holds nothing" : join(parts, ", ");
}

std::string describe_attachment(const v1::Binding& binding) {
  if (binding.attached_ar().empty()) return "";
  std::vector<std::string> parts;
  const auto& attachment = binding.attachment();
  for (const auto& part : {attachment.interface(), attachment.link_layer_address(), attachment.link_local()}) {
    if (!part.empty()) parts.push_back(part);
  }
  if (parts.empty()) return binding.attached_ar();
  return fmt::format("{} ({})", binding.attached_ar(), join(parts, ", "));
}

const Table& event_table() {
  static const Table table({{"ID", Align::kRight, 6},
                            {"AT", Align::kLeft, 24},
                            {"EVENT", Align::kLeft, 18},
                            {"AR", Align::kLeft, 6},
                            {"PREFIX", Align::kLeft, 22},
                            {"GENERATION", Align::kLeft, 10},
                            {"MN", Align::kLeft, 17},
                            {"DETAIL"}});
  return table;
}

}  // namespace

std::string render_status(const v1::StatusResponse& status, std::string_view server, SystemTime now) {
  Properties out;
  out.add("server", std::string(server));
  out.add("version", status.version());
  out.add_time("started", status.has_started_at(), status.started_at(), now);
  out.add("store", status.store());
  out.add("revision", format_generation(status.revision()));
  out.add("bindings", fmt::format("{} ({} attached, {} moving)", status.bindings(), status.bindings_attached(),
                                  status.bindings_moving()));
  out.add("nodes", fmt::format("{} ({} connected)", status.nodes(), status.nodes_connected()));
  out.add("last event", std::to_string(status.last_event_id()));
  return out.text();
}

std::string render_nodes(const v1::ListNodesResponse& nodes, SystemTime now) {
  Table table({{"NAME"},
               {"SESSION"},
               {"AGE", Align::kRight},
               {"LOCATOR"},
               {"ATTACHED", Align::kRight},
               {"HOME", Align::kRight},
               {"HELD", Align::kRight},
               {"POOL", Align::kRight},
               {"DRAIN"},
               {"VERSION"},
               {"FRR"},
               {"HEALTH"}});
  for (const auto& node : nodes.nodes()) {
    const std::string drain = node.draining() ? fmt::format("{} left", node.drain_remaining()) : std::string();
    table.add({node.info().name(), node.connected() ? "up" : "down", age_of(node.has_since(), node.since(), now),
               node.info().locator(), std::to_string(node.attached()), std::to_string(node.home()),
               std::to_string(node.held()), fmt::format("{}/{}", node.pool_used(), node.pool_size()), drain,
               node.version(), node.health().frr_version(), node.has_health() ? summarize(node.health()) : ""});
  }
  return table.to_string();
}

std::string render_bindings(const v1::ListBindingsResponse& bindings, SystemTime now) {
  Table table({{"PREFIX"},
               {"KIND"},
               {"MN"},
               {"HOME"},
               {"ATTACHED"},
               {"AGE", Align::kRight},
               {"MODE"},
               {"STATE"},
               {"GENERATION"},
               {"PREF", Align::kRight},
               {"HOLDERS"}});
  for (const auto& binding : bindings.bindings()) {
    table.add({binding.prefix(), kind_of(binding), binding.mn_id(), binding.home_ar(), binding.attached_ar(),
               age_of(binding.has_attached_at(), binding.attached_at(), now), short_name(binding.mode()),
               short_name(binding.state()), format_generation(binding.generation()),
               std::to_string(binding.preference()), holder_names(binding)});
  }
  return table.to_string();
}

std::string render_binding(const v1::Binding& binding, SystemTime now) {
  Properties out;
  out.add("prefix", binding.prefix());
  out.add("kind", binding.mobile_network() ? "MNP (of the mobile network behind the MN)" : "HNP (of the MN itself)");
  out.add("mn", binding.mn_id());
  out.add("state", short_name(binding.state()));
  out.add("home", binding.home_ar());
  out.add("attached", describe_attachment(binding));
  out.add("mode", short_name(binding.mode()));
  out.add("prefix type", short_name(binding.prefix_type()));
  if (binding.has_relocate_at()) {
    out.add("relocates", fmt::format("at {}{}", format_time(from_proto(binding.relocate_at()), TimePrecision::kSeconds),
                                     binding.flapping() ? ", if it has come to rest (flapping)" : ""));
  }
  if (binding.has_ends_at()) {
    out.add("ends", format_time(from_proto(binding.ends_at()), TimePrecision::kSeconds));
  }
  if (binding.has_free_at()) {
    out.add("free", format_time(from_proto(binding.free_at()), TimePrecision::kSeconds));
  }
  out.add("preference",
          binding.preference() == 0 ? "0 (covered by the home aggregate)" : std::to_string(binding.preference()));
  out.add("generation", format_generation(binding.generation()));
  out.add("revision", format_generation(binding.revision()));
  out.add_time("created", binding.has_created_at(), binding.created_at(), now);
  out.add_time("heard", binding.has_attached_at(), binding.attached_at(), now);
  if (binding.has_idle_since()) out.add_time("idle since", true, binding.idle_since(), now);
  out.add_time("updated", binding.has_updated_at(), binding.updated_at(), now);
  Table holders({{"HOLDER"}, {"ACKNOWLEDGED"}, {"DOES"}});
  for (const auto& holder : binding.holders()) {
    holders.add({holder.ar(), format_generation(holder.generation()), describe(holder, binding)});
  }
  return out.text() + "\n" + (binding.holders().empty() ? "no AR holds anything for it\n" : holders.to_string());
}

std::string render_policies(const v1::ListPoliciesResponse& policies, SystemTime now) {
  Table table({{"SCOPE"}, {"NAME"}, {"AGE", Align::kRight}, {"POLICY"}});
  for (const auto& entry : policies.policies()) {
    std::vector<std::string> fields;
    for (const auto& [key, value] : policy_fields(entry.policy())) fields.push_back(key + "=" + value);
    const auto& scope = entry.scope();
    table.add({scope.has_mn_id() ? "mn"
               : scope.has_ar()  ? "ar"
                                 : "default",
               scope.has_mn_id() ? scope.mn_id() : scope.ar(), age_of(entry.has_updated_at(), entry.updated_at(), now),
               join(fields, " ")});
  }
  return table.to_string();
}

std::string render_effective_policy(const v1::EffectivePolicy& effective) {
  Table table({{"KEY"}, {"VALUE"}, {"FROM"}});
  for (const auto& [key, value] : policy_fields(effective.policy())) {
    const auto source = effective.sources().find(key);
    table.add({key, value, source == effective.sources().end() ? "" : source->second});
  }
  return table.to_string();
}

std::string render_event_header() { return event_table().header_line(); }

std::string render_event(const v1::Event& event) {
  std::string name = short_name(event.type());
  if (is_alarm(event.type())) absl::AsciiStrToUpper(&name);
  const auto& time = event.has_at() ? event.at() : event.recorded_at();
  return event_table().line({std::to_string(event.id()), format_time(from_proto(time), TimePrecision::kMilliseconds),
                             name, event.ar(), event.prefix(), format_generation(event.generation()), event.mn_id(),
                             event.detail()});
}

absl::StatusOr<std::string> render_json(const google::protobuf::Message& message, JsonStyle style) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = style == JsonStyle::kIndented;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  if (!status.ok()) {
    return absl::InternalError(
        fmt::format("the server's answer cannot be written as JSON: {}", std::string(status.message())));
  }
  if (!text.ends_with('\n')) text += '\n';
  return text;
}

std::string render_audit(const v1::AuditRecord& record) {
  std::string text =
      fmt::format("{} {} {} {} {}\n", record.id(), format_time(from_proto(record.at()), TimePrecision::kMilliseconds),
                  printable(record.who()), record.action(), printable(record.outcome()));
  const auto add = [&text](const char* name, const std::string& value) {
    if (!value.empty()) text += fmt::format("    {:<9}{}\n", name, printable(value));
  };
  add("request", record.request());
  if (!record.peer().empty()) add("from", fmt::format("{}, certificate {}", record.peer(), record.serial()));
  if (record.suppressed() > 0) add("before", fmt::format("{} refusals that were not recorded", record.suppressed()));
  for (const auto& change : record.changes()) {
    text += fmt::format("    {}\n      - {}\n      + {}\n", printable(change.subject()), printable(change.before()),
                        printable(change.after()));
  }
  return text;
}

}  // namespace kedge::kedgectl
