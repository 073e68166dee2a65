# The front door. Everything is built under build/; CMake and Ninja do the work (CMakePresets.json).

PRESET ?= release
JOBS ?= $(shell nproc)

.DEFAULT_GOAL := help
.PHONY: help setup build demo test bench format clean

help: ## This list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

setup: ## Install the Debian packages that are missing and build the modules for FRR (root)
	@scripts/setup.sh
	@frr/build-modules.sh

build: build/$(PRESET)/build.ninja ## Build everything (PRESET=release; or dev, asan, tsan)
	@cmake --build build/$(PRESET) -j $(JOBS) $(BUILD_FLAGS)

# Ninja runs CMake again by itself when a CMakeLists.txt has changed, but it does not watch the presets.
build/$(PRESET)/build.ninja: CMakePresets.json
	@cmake --preset $(PRESET)
	@touch $@

demo: setup ## Set up, build, move a mobile node between two access routers and measure it (root)
	@$(MAKE) --no-print-directory build
	@/usr/bin/python3 tests/demo/demo.py

test: ## Set up, build, run all tests; the last line gives the totals (root)
	@scripts/test.sh

bench: setup ## Measure beside GoBGP, ExaBGP, vtysh and etcd; BENCH="lm storm" for parts of it (root)
	@scripts/setup.sh bench-packages.txt
	@$(MAKE) --no-print-directory build
	@/usr/bin/python3 tests/bench/bench.py $(BENCH)

format: ## Format the C++ code in place
	@git ls-files -z --cached --others --exclude-standard -- '*.h' '*.cc' '*.c' | xargs -0 --no-run-if-empty clang-format -i

clean: ## Remove everything built here (the modules for FRR stay in the machine's cache)
	@rm -rf build
