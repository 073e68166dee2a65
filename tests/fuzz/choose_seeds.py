#!/usr/bin/env python3
"""Chooses, from what a long run of scripts/fuzz.sh has found, the few inputs that reach what the kept ones do not.

usage: choose_seeds.py TARGET FOUND KEPT    # build/fuzz/tests/fuzz/fuzz_x build/fuzz/corpus/fuzz_x tests/fuzz/corpus/fuzz_x

The chosen are copied into KEPT under their hashes.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def features_of(target: Path, folders: list[Path]) -> dict[Path, set[int]]:
    """What each input reaches (edges, and how often), as libFuzzer notes it down while it merges."""
    with tempfile.TemporaryDirectory() as scratch:
        control = Path(scratch) / "control"
        merged = Path(scratch) / "merged"
        merged.mkdir()
        subprocess.run(
            [target.resolve(), "-merge=1", f"-merge_control_file={control}", merged, *folders],
            check=True,
            stderr=subprocess.DEVNULL,
            env={"LLVM_PROFILE_FILE": "/dev/null"},
        )
        lines = control.read_text().splitlines()
    count = int(lines[0])
    names = [Path(line) for line in lines[2 : 2 + count]]
    reached: dict[Path, set[int]] = {name: set() for name in names}
    for line in lines[2 + count :]:
        word, number, *values = line.split()
        if word == "FT":
            reached[names[int(number)]] |= {int(value) for value in values}
    return reached


def choose(reached: dict[Path, set[int]], kept: Path, most: int) -> list[Path]:
    covered = set().union(*(features for name, features in reached.items() if name.parent == kept), set())
    chosen = []
    while len(chosen) < most:
        best = max(reached, key=lambda name: (len(reached[name] - covered), -name.stat().st_size))
        if not reached[best] - covered:
            break
        covered |= reached[best]
        chosen.append(best)
    return chosen


def main() -> None:
    target, found, kept = (Path(argument) for argument in sys.argv[1:])
    chosen = choose(features_of(target, [kept, found]), kept, most=16)
    for name in chosen:
        shutil.copy(name, kept / name.name[:12])
    print(f"{target.name}: {len(chosen)} added")


if __name__ == "__main__":
    main()
