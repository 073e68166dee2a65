// Micro-benchmarks of what is done for each arrival: state machines, tables, codecs, the store.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/strings/str_format.h"
#include "common/ipv6.h"
#include "lm-server/core/binding_table.h"
#include "lm-server/core/machine.h"
#include "lm-server/core/prefix_map.h"
#include "lm-server/core/prefix_pool.h"
#include "lm-server/core/wire.h"
#include "lm-server/store/rocksdb_store.h"
#include "speaker/access/icmpv6_codec.h"
#include "speaker/core/desired.h"
#include "speaker/core/permitted_sources.h"
#include "speaker/frr/best_path.h"
#include "speaker/frr/route_ledger.h"

namespace kedge {
namespace {

// The LM's state machine with two access routers, and so many bindings at home at the first.
class Lm {
 public:
  explicit Lm(std::uint64_t bindings) : machine_(settings(), 1) {
    for (int i = 1; i <= 2; ++i) {
      v1::Hello hello;
      hello.set_ar(absl::StrFormat("ar%d", i));
      hello.set_incarnation(1);
      machine_.session_up(hello, static_cast<std::uint64_t>(i), now_);
    }
    for (std::uint64_t i = 0; i < bindings; ++i) arrive(1, i);
  }

  // Attach and the acknowledgement that the access router delivers.
  void arrive(int ar, std::uint64_t node) {
    now_ += std::chrono::milliseconds(1);
    const auto mac = absl::StrFormat("02:00:%02x:%02x:%02x:%02x", node >> 24U & 0xffU, node >> 16U & 0xffU,
                                     node >> 8U & 0xffU, node & 0xffU);
    v1::AttachRequest request;
    request.set_ar(absl::StrFormat("ar%d", ar));
    request.set_mn_id(mac);
    request.mutable_attachment()->set_interface("eth2");
    request.mutable_attachment()->set_link_layer_address(mac);
    request.mutable_attachment()->set_link_local("fe80::11");
    request.set_trigger(v1::TRIGGER_ROUTER_SOLICITATION);
    request.set_incarnation(1);
    request.set_sequence(++sequence_);
    auto output = machine_.attach(request, now_);
    if (!output.status.ok()) std::abort();
    for (const auto& message : output.messages) {
      if (message.session != static_cast<std::uint64_t>(ar) || message.record == nullptr) continue;
      const auto content = parsed(message);
      if (!content.record().has_binding()) continue;
      const auto& binding = content.record().binding();
      v1::Ack ack;
      ack.set_prefix(binding.prefix());
      *ack.mutable_generation() = binding.generation();
      ack.set_stage(v1::STAGE_DELIVERING);
      benchmark::DoNotOptimize(machine_.ack(message.session, ack, now_));
    }
  }

 private:
  static lm::Settings settings() {
    lm::Settings settings;
    settings.flap_window = {};
    settings.new_nodes_window = {};
    for (int i = 1; i <= 2; ++i) {
      lm::AccessRouter ar;
      ar.info.set_name(absl::StrFormat("ar%d", i));
      ar.info.set_locator(absl::StrFormat("2001:db8:ffff:%d::1", i));
      ar.info.set_deliver_sid(absl::StrFormat("2001:db8:ffff:%d::d", i));
      for (int pool = 0; pool < 32; ++pool) {
        const auto text = absl::StrFormat("2001:db8:%x::/48", i * 256 + pool);
        ar.info.add_pools(text);
        ar.pools.push_back(*Ipv6Prefix::parse(text));
      }
      settings.access_routers.push_back(ar);
    }
    return settings;
  }

  lm::Machine machine_;
  SystemTime now_{std::chrono::hours(24 * 365 * 55)};
  std::uint64_t sequence_ = 0;
};

void lm_new_node(benchmark::State& state) {
  Lm lm(static_cast<std::uint64_t>(state.range(0)));
  auto node = static_cast<std::uint64_t>(state.range(0));
  for (auto _ : state) lm.arrive(1, node++);
}
BENCHMARK(lm_new_node)->Arg(0)->Arg(100'000);

// Nodes go to the second access router and back; two bindings each.
void lm_move(benchmark::State& state) {
  const auto bindings = static_cast<std::uint64_t>(state.range(0));
  Lm lm(bindings);
  std::uint64_t moves = 0;
  for (auto _ : state) {
    lm.arrive(moves / bindings % 2 == 0 ? 2 : 1, moves % bindings);
    ++moves;
  }
}
BENCHMARK(lm_move)->Arg(1)->Arg(100'000);

v1::Binding settled_binding() {
  v1::Binding binding;
  binding.set_prefix("2001:db8:1:1::/64");
  binding.set_mn_id("02:00:00:00:00:11");
  binding.set_home_ar("ar1");
  binding.set_attached_ar("ar2");
  binding.set_mode(v1::MODE_RELOCATE);
  binding.set_preference(2);
  binding.mutable_generation()->set_revision(7);
  for (const char* ar : {"ar1", "ar2"}) {
    auto& holder = *binding.add_holders();
    holder.set_ar(ar);
    holder.mutable_generation()->set_revision(7);
    holder.set_delivers(holder.ar() == "ar2");
  }
  return binding;
}

// A binding is looked at that nobody has looked at for long.
void lm_unpack(benchmark::State& state) {
  lm::BindingTable table(2);
  const auto pool = *Ipv6Prefix::parse("2001:db8:1::/48");
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    table.add(pool.nth(64, i), lm::BindingTable::pack_binding(settled_binding().SerializeAsString()));
  }
  std::uint64_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(table.at(pool.nth(64, i++ % 10'000)));
    table.pack();
  }
}
BENCHMARK(lm_unpack);

// One /64 is taken and an earlier one given back; so many of 65,536 are in use.
void lm_prefix_pool(benchmark::State& state) {
  lm::PrefixPool pool({*Ipv6Prefix::parse("2001:db8:1::/48")});
  std::deque<Ipv6Prefix> taken;
  while (taken.size() < static_cast<std::size_t>(state.range(0))) taken.push_back(*pool.take());
  for (auto _ : state) {
    taken.push_back(*pool.take());
    pool.give_back(taken.front());
    taken.pop_front();
  }
}
BENCHMARK(lm_prefix_pool)->Arg(1000)->Arg(60'000);

// An address's binding among so many.
void lm_find_covering(benchmark::State& state) {
  const auto pool = *Ipv6Prefix::parse("2001:db8::/40");
  const auto count = static_cast<std::uint64_t>(state.range(0));
  absl::btree_map<Ipv6Prefix, int> bindings;
  for (std::uint64_t i = 0; i < count; ++i) bindings.emplace(pool.nth(64, i), 0);
  std::uint64_t i = 0;
  for (auto _ : state) {
    const auto address = Ipv6Prefix(pool.nth(64, (i += 7919) % count).address(), 128);
    benchmark::DoNotOptimize(lm::find_covering(bindings, address));
  }
}
BENCHMARK(lm_find_covering)->Arg(10'000)->Arg(1'000'000);

// A changed binding, as three sessions are told of it.
void lm_record_to_three_sessions(benchmark::State& state) {
  const auto binding = settled_binding();
  for (auto _ : state) {
    const auto record = lm::field_of(v1::Record::kBindingFieldNumber, binding.SerializeAsString());
    for (int session = 0; session < 3; ++session) {
      v1::LmMessage message;
      message.mutable_records()->add_records(record);
      benchmark::DoNotOptimize(message.SerializeAsString());
    }
  }
}
BENCHMARK(lm_record_to_three_sessions);

// A prefix goes from one MN to another, beside so many prefixes; what the kernel needs to know of it is taken.
void speaker_permitted_sources(benchmark::State& state) {
  const auto pool = *Ipv6Prefix::parse("2001:db8:1::/48");
  const auto count = static_cast<std::uint64_t>(state.range(0));
  std::array<std::vector<v1::Binding>, 2> of_mn;
  for (std::size_t mn = 0; mn < of_mn.size(); ++mn) {
    for (std::uint64_t i = 0; i < count; ++i) {
      auto& binding = of_mn.at(mn).emplace_back(settled_binding());
      binding.set_prefix(pool.nth(64, i).to_string());
      binding.mutable_attachment()->set_interface("access0");
      binding.mutable_attachment()->set_link_layer_address(absl::StrFormat("02:00:00:00:00:%02x", mn));
    }
  }
  speaker::PermittedSources sources("ar2");
  // Each has one that it keeps, and its link-local address with it.
  for (std::size_t mn = 0; mn < of_mn.size(); ++mn) {
    auto kept = of_mn.at(mn).front();
    const auto prefix = pool.nth(64, count + mn);
    kept.set_prefix(prefix.to_string());
    sources.take(prefix, kept, {});
  }
  std::uint64_t taken = 0;
  const auto take = [&] {
    const auto i = taken % count;
    const auto prefix = pool.nth(64, i);
    sources.forget(prefix, {});
    sources.take(prefix, of_mn.at(taken++ / count % of_mn.size()).at(i), {});
  };
  while (taken < count) take();
  benchmark::DoNotOptimize(sources.take_change());
  for (auto _ : state) {
    take();
    const auto change = sources.take_change();
    if (change.added.size() != 1 || change.removed.size() != 1) return state.SkipWithError("the MN did not change");
  }
}
BENCHMARK(speaker_permitted_sources)->Arg(100)->Arg(10'000);

// bgpd's answer for a prefix with three paths.
void speaker_parse_paths(benchmark::State& state) {
  const auto prefix = *Ipv6Prefix::parse("2001:db8:1:1::/64");
  std::string paths;
  for (int i = 1; i <= 3; ++i) {
    paths += absl::StrFormat(
        R"(%s{"aspath":{"string":"Local","segments":[],"length":0},"origin":"incomplete","metric":0,"locPrf":%d,)"
        R"("valid":true%s,"peer":{"peerId":"2001:db8:ffff::%d","routerId":"10.0.0.%d"},)"
        R"("nexthops":[{"ip":"2001:db8:ffff::%d","afi":"ipv6","scope":"global","metric":20,"accessible":true}]})",
        i == 1 ? "" : ",", 100 + i, i == 3 ? R"(,"bestpath":{"overall":true,"selectionReason":"Local Pref"})" : "", i,
        i, i);
  }
  const auto json = R"({"prefix":"2001:db8:1:1::/64","version":3,"paths":[)" + paths + "]}";
  for (auto _ : state) {
    const auto parsed = speaker::parse_paths(prefix, json);
    if (!parsed.ok() || !parsed->best) return state.SkipWithError("the answer was not understood");
    benchmark::DoNotOptimize(parsed);
  }
}
BENCHMARK(speaker_parse_paths);

void speaker_desired(benchmark::State& state) {
  const auto binding = settled_binding();
  for (auto _ : state) benchmark::DoNotOptimize(speaker::desired(binding, "ar1"));
}
BENCHMARK(speaker_desired);

// One route is set, planned and committed, beside so many others.
void speaker_route_ledger(benchmark::State& state) {
  const auto pool = *Ipv6Prefix::parse("2001:db8::/32");
  speaker::RouteLedger ledger(8);
  ledger.replace_all({});
  for (std::int64_t i = 0; i < state.range(0); ++i) ledger.set(pool.nth(64, static_cast<std::uint64_t>(i)), 1);
  ledger.take_committed(ledger.plan(~std::size_t{0}).changes);
  std::uint32_t level = 1;
  for (auto _ : state) {
    ledger.set(pool.nth(64, 1'000'000), level = 3 - level);
    ledger.take_committed(ledger.plan(~std::size_t{0}).changes);
  }
}
BENCHMARK(speaker_route_ledger)->Arg(0)->Arg(100'000);

const speaker::FrameAddresses kAddresses{
    LinkLayerAddress({2, 0, 0, 0, 0, 0x11}), LinkLayerAddress({0x33, 0x33, 0, 0, 0, 2}),
    speaker::eui64_link_local(LinkLayerAddress({2, 0, 0, 0, 0, 0x11})), speaker::all_routers_address()};

void speaker_parse_solicitation(benchmark::State& state) {
  const auto frame = speaker::build_frame(kAddresses, speaker::RouterSolicitation{kAddresses.link_source});
  for (auto _ : state) {
    const auto packet = speaker::parse_icmpv6_frame(frame);
    benchmark::DoNotOptimize(speaker::parse_router_solicitation(*packet));
  }
}
BENCHMARK(speaker_parse_solicitation);

void speaker_build_advertisement(benchmark::State& state) {
  speaker::RouterAdvertisement advertisement;
  for (int i = 0; i < 4; ++i) {
    speaker::PrefixInformation prefix;
    prefix.prefix = Ipv6Prefix::parse("2001:db8:1::/48")->nth(64, static_cast<std::uint64_t>(i));
    advertisement.prefixes.push_back(prefix);
  }
  for (auto _ : state) benchmark::DoNotOptimize(speaker::build_frame(kAddresses, advertisement));
}
BENCHMARK(speaker_build_advertisement);

void prefix_to_text_and_back(benchmark::State& state) {
  const auto prefix = *Ipv6Prefix::parse("2001:db8:1:abcd::/64");
  for (auto _ : state) benchmark::DoNotOptimize(Ipv6Prefix::parse(prefix.to_string()));
}
BENCHMARK(prefix_to_text_and_back);

// So many commits of one binding are asked for at once, and all are on disk.
void store_commits(benchmark::State& state) {
  const auto folder = std::filesystem::current_path() / absl::StrFormat("micro_bench.%d", ::getpid());
  auto store = lm::RocksDbStore::open(folder.string());
  if (!store.ok()) return state.SkipWithError(std::string(store.status().message()).c_str());
  const auto value = settled_binding().SerializeAsString();
  std::uint64_t revision = 0;
  std::mutex mutex;
  std::condition_variable changed;
  for (auto _ : state) {
    std::int64_t left = state.range(0);
    for (std::int64_t i = 0; i < state.range(0); ++i, ++revision) {
      (*store)->commit(
          {revision, revision + 1, lm::Durability::kSync, {{absl::StrFormat("binding/%d", revision % 1000), value}}},
          [&](const absl::Status&) {
            std::lock_guard lock(mutex);
            if (--left == 0) changed.notify_one();
          });
    }
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return left == 0; });
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
  store->reset();
  std::filesystem::remove_all(folder);
}
BENCHMARK(store_commits)->Arg(1)->Arg(64)->Arg(1000)->UseRealTime();

}  // namespace
}  // namespace kedge

BENCHMARK_MAIN();
