#!/usr/bin/env bash
# Builds and runs all tests: unit and component tests (CTest), scenarios and tools (pytest), fuzz targets. Every stage runs,
# whatever became of those before it; the last line adds them up. Logs and results: build/test-logs/.
#
#   FUZZ_SECONDS        how long each fuzz target runs (default: 5)
#   TEST_LABS           how many modules of scenarios run at a time (default: 1; two of them disturb each other now and then)
#   TEST_STAGE_SECONDS  after how long a stage is stopped (default: 2700)
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
logs=$root/build/test-logs
stage_seconds=${TEST_STAGE_SECONDS:-2700}
results=()

# Runs one stage with its output on the screen and in a log. In the foreground, so that Ctrl-C reaches it; stopped by the same
# signal, so that it removes what it made.
stage() {
    local name=$1 status
    shift
    printf '\n== %s\n' "$name"
    timeout --foreground -s INT -k 60 "$stage_seconds" "$@" 2>&1 | tee "$logs/$name.log"
    status=${PIPESTATUS[0]}
    [[ $status -ne 124 ]] || printf '%s: stopped after %s s\n' "$name" "$stage_seconds"
    results+=("$name=$status=$logs/$name.xml")
}

# A stage that tests nothing: it counts only when it fails.
prepare() {
    local so_far=("${results[@]}")
    stage "$@"
    [[ ${results[-1]} != "$1=0="* ]] || results=("${so_far[@]}")
}

fuzz_build=
stop_fuzz_build() { [[ -z $fuzz_build ]] || kill "$fuzz_build" 2>/dev/null; }
trap 'stop_fuzz_build; exit 130' INT
trap 'stop_fuzz_build; exit 143' TERM HUP
mkdir -p "$logs"
rm -f "$logs"/*.xml "$logs"/*.log

prepare setup make --no-print-directory setup
prepare build make --no-print-directory build PRESET=release BUILD_FLAGS='-- -k 0'

stage ctest ctest --test-dir build/release --output-junit "$logs/ctest.xml" --output-on-failure --no-tests=error \
    --timeout 300 -j "$(nproc)"

# The fuzz targets are built beside the scenarios, which mostly wait. Their own stage builds what is missing then, and says why.
if cmake --preset fuzz >"$logs/fuzz-build.log" 2>&1; then
    nice -n 19 ninja -k 0 -j 1 -C build/fuzz fuzzers >>"$logs/fuzz-build.log" 2>&1 &
    fuzz_build=$!
fi

# One run of pytest for each folder with tests, those below it included, so that one broken folder does not hide the others.
mapfile -t folders < <(find containerlab frr scripts tests -name 'test_*.py' -printf '%h/\n' 2>/dev/null | sort -u |
    awk 'above == "" || index($0, above) != 1 { above = $0; print substr($0, 1, length($0) - 1) }')
for folder in "${folders[@]}"; do
    name=pytest-${folder//\//-}
    if [[ $folder == tests/lab ]]; then
        stage "$name" /usr/bin/python3 scripts/run_modules.py --jobs "${TEST_LABS:-1}" --junit "$logs/$name.xml" "$folder"
    else
        stage "$name" /usr/bin/python3 -m pytest -q -p no:cacheprovider --junitxml="$logs/$name.xml" "$folder"
    fi
done

[[ -z $fuzz_build ]] || wait "$fuzz_build"
FUZZ_JUNIT=$logs/fuzz.xml stage fuzz scripts/fuzz.sh

printf '\n== totals\n'
/usr/bin/python3 scripts/junit_totals.py "${results[@]}"
