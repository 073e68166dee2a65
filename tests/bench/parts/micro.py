"""Google Benchmark's measurements of what is done for each arrival."""

import json
import subprocess

import processes
from report import Part, Table

NAMES = {
    "lm_new_node": "LM: attach of a new MN and its acknowledgement",
    "lm_move": "LM: attach at another AR and its acknowledgements, two bindings",
    "lm_unpack": "LM: a packed binding is looked at and another packed",
    "lm_prefix_pool": "LM: a /64 taken from a pool and an earlier one given back",
    "lm_find_covering": "LM: the binding of an address",
    "lm_record_to_three_sessions": "LM: a changed binding written for three sessions",
    "speaker_permitted_sources": "speaker: a prefix permitted for another MN",
    "speaker_parse_paths": "speaker: bgpd's answer for a prefix with three paths",
    "speaker_desired": "speaker: what is desired of one record",
    "speaker_route_ledger": "speaker: one route set, planned and taken as committed",
    "speaker_parse_solicitation": "speaker: a router solicitation parsed",
    "speaker_build_advertisement": "speaker: a router advertisement with four prefixes built",
    "prefix_to_text_and_back": "a prefix to text and back",
    "store_commits": "store: durable commits, each",
}


def run(bench):
    command = [bench.build / "tests" / "bench" / "micro_bench", "--benchmark_format=json", f"--benchmark_min_time={bench.samples(0.5, 0.01)}",
               f"--benchmark_repetitions={bench.samples(5, 1)}"]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=bench.scratch)
    if done.returncode != 0:
        raise processes.BenchError(f"micro_bench: {done.stderr.strip()}")
    seen = {}
    for line in json.loads(done.stdout)["benchmarks"]:
        if line.get("run_type") != "aggregate":
            each = 1e9 / line["items_per_second"] if "items_per_second" in line else line["real_time"]
            seen.setdefault(line["run_name"], []).append(each / 1000)
    rows = []
    for run_name, values in seen.items():
        name, *argument = run_name.split("/")
        text = NAMES[name] + (f", {int(argument[0]):,} {'at once' if name == 'store_commits' else 'others'}" if argument else "")
        rows.append([text, min(values), sorted(values)[len(values) // 2], max(values)])
    return Part(
        title="Micro-benchmarks",
        method="Google Benchmark, each five times; microseconds of real time.",
        tables=[Table("Microseconds", ["", "min", "median", "max"], rows, "The state machines answer with all their messages built; nothing is sent.")],
        data={"microseconds": seen},
    )  # fmt: skip
