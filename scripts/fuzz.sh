#!/usr/bin/env bash
# Builds the fuzz targets (CMake target `fuzzers`, by clang's libFuzzer) and runs each for a while, from the seeds that the
# repository holds for it in tests/fuzz/corpus/<name>. One line a target; an input that crashes is kept.
#
#   FUZZ_SECONDS  how long each target runs (default: 5)
#   FUZZ_KEEP     not empty: begin with what the last run has found, too
#   FUZZ_TARGETS  "fuzz_a fuzz_b": only these
#   FUZZ_JUNIT    a file to write the results to in JUnit's format
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
seconds=${FUZZ_SECONDS:-5}
build=build/fuzz
logs=build/test-logs/fuzz
cases=

say() { printf 'fuzz: %s\n' "$*"; }

# Adds a test case to the results: name, and what went wrong if anything did.
record() {
    cases+="  <testcase classname=\"fuzz\" name=\"$1\">${2:+<failure message=\"$2\"/>}</testcase>"$'\n'
}

# Called by the trap.
# shellcheck disable=SC2317
write_results() {
    if [[ -n ${FUZZ_JUNIT:-} ]]; then
        printf '<testsuite name="fuzz">\n%s</testsuite>\n' "$cases" >"$FUZZ_JUNIT"
    fi
}

build_targets() {
    if [[ ! -f $build/build.ninja || CMakePresets.json -nt $build/build.ninja ]]; then
        cmake --preset fuzz
        touch "$build/build.ninja"
    fi
    cmake --build --preset fuzz -j "${JOBS:-$(nproc)}"
}

# Runs one target. What became of it goes into files beside its log: .problem, if there is any, and .line for people.
run_target() {
    local binary=$1 name=${1##*/}
    local log=$logs/$name.log grown=$build/corpus/$name profile=$build/corpus/$name.profraw seeds=() runs problem=
    mkdir -p "$grown"
    # Last run's finds are not carried over: each run starts from the same inputs.
    [[ -n ${FUZZ_KEEP:-} ]] || rm -f "$grown"/*
    [[ ! -d tests/fuzz/corpus/$name ]] || seeds=("tests/fuzz/corpus/$name")
    LLVM_PROFILE_FILE=$profile "$binary" "$grown" "${seeds[@]}" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$logs/$name-" >"$log" 2>&1 || problem="exit status $?"
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    if [[ -z $problem && ${runs:-0} -eq 0 ]]; then
        problem="it executed nothing"
    fi
    if [[ -z $problem ]]; then
        say "$name: passed, $runs runs in $seconds s$(coverage "$binary" "$profile")" >"$logs/$name.line"
        return
    fi
    echo "$problem" >"$logs/$name.problem"
    {
        grep -m1 -E '^(broken:|==[0-9]+==ERROR|SUMMARY|.*runtime error)' "$log" || true
        say "$name: failed, $problem after ${runs:-0} runs; see $log and the inputs beside it"
    } >"$logs/$name.line"
}

# ", 71 % of 523 lines": of the code under test that the target links, how much its run has executed.
coverage() {
    local data=${2%.profraw}.profdata
    if ! command -v llvm-cov-14 >/dev/null || [[ ! -f $2 ]]; then
        return
    fi
    llvm-profdata-14 merge -sparse "$2" -o "$data" 2>/dev/null || return 0
    llvm-cov-14 report "$1" -instr-profile="$data" -summary-only 2>"$data.log" | tee "${data%.profdata}.coverage" |
        awk '$1 == "TOTAL" { printf ", %d %% of %d lines", 100 * ($8 - $9) / $8, $8 }'
}

mkdir -p "$logs"
rm -f "$logs"/*
trap write_results EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if ! build_targets >"$logs/build.log" 2>&1; then
    tail -n 30 "$logs/build.log"
    record build "the fuzz targets do not build"
    say "the fuzz targets do not build; see $logs/build.log"
    exit 1
fi

mapfile -t targets < <(find "$build" -type f -name 'fuzz_*' -executable ! -path '*/CMakeFiles/*' | sort)
if [[ -n ${FUZZ_TARGETS:-} ]]; then
    wanted=" $FUZZ_TARGETS "
    for i in "${!targets[@]}"; do
        [[ $wanted == *" ${targets[i]##*/} "* ]] || unset "targets[i]"
    done
fi
if [[ ${#targets[@]} -eq 0 ]]; then
    record build "there is no fuzz target"
    say "there is no fuzz target in $build"
    exit 1
fi
for target in "${targets[@]}"; do
    while [[ $(jobs -rp | wc -l) -ge ${JOBS:-$(nproc)} ]]; do
        wait -n || true
    done
    run_target "$target" &
done
wait
status=0
for target in "${targets[@]}"; do
    name=${target##*/}
    cat "$logs/$name.line"
    if [[ -f $logs/$name.problem ]]; then
        record "$name" "$(<"$logs/$name.problem")"
        status=1
    else
        record "$name"
    fi
done
exit "$status"
