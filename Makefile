# Seacliff's front door. Every target does its own set-up: Debian packages (packages.txt), Python test
# tools (.venv), the build (build/PRESET). CMake does the work.
.DEFAULT_GOAL := help
.PHONY: help demo build test test-all cuda gpu-pack gpu-test sanitize asan tsan fuzz fuzz-build format docs clean

PORT ?= 8000
MODEL ?= models/tiny
JOBS ?= $(shell nproc)
LAUNCHER = $(if $(shell command -v ccache),-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
CTEST = ctest --output-on-failure --no-tests=error -j $(JOBS)

# $(call configure,PRESET,OPTIONS)
configure = cmake --preset $(1) $(2) $(LAUNCHER)
compile = cmake --build build/$(1) -j $(JOBS) $(if $(2),--target $(2))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## build, start the server with the demo model, stream one answer, serve (ONCE=1: stop; PORT=8000)
	@sh tools/packages.sh build
	@python3 tools/demo.py --port $(PORT) --check-port
	@test -f build/cpu/build.ninja || $(call configure,cpu,-DSEACLIFF_TESTS=OFF)
	@$(call compile,cpu,seacliff)
	@python3 tools/demo.py --port $(PORT) --model $(MODEL) $(if $(ONCE),--once)

build: ## build the binary, build/cpu/seacliff
	@sh tools/packages.sh build
	@test -f build/cpu/build.ninja || $(call configure,cpu,-DSEACLIFF_TESTS=OFF)
	@$(call compile,cpu,seacliff)

test: ready ## build and run all tests but the slow ones (no GPU needed)
	@$(call configure,cpu,-DSEACLIFF_TESTS=ON)
	@$(call compile,cpu)
	@$(call compile-cuda,sm80)
	@$(CTEST) --test-dir build/cpu -LE slow

test-all: ready ## the slow tests too (clang-tidy, long simulations, fuzzers, CUDA for later cards)
	@sh tools/packages.sh slow
	@$(MAKE) --no-print-directory fuzz-build
	@$(call configure,cpu,-DSEACLIFF_TESTS=ON)
	@$(call compile,cpu)
	@$(call compile-cuda,sm80)
	@$(call compile-cuda,later-cards)
	@$(CTEST) --test-dir build/cpu

asan tsan: ready
	@$(call configure,$@,-DSEACLIFF_TESTS=ON)
	@$(call compile,$@)
	@SEACLIFF_SOAK_SECONDS=60 $(CTEST) --test-dir build/$@ -LE 'slow|taste'
asan: ## build and test with the address and undefined behaviour sanitizers
tsan: ## build and test with the thread sanitizer

FUZZ_SECONDS ?= 900
fuzz: fuzz-build ## run every fuzzer (FUZZ_SECONDS=900 each, at the same time)
	@test -x build/fuzz/fuzz_reply || { echo "make fuzz: needs clang++-19" >&2; exit 1; }
	@sh tests/fuzz/run.sh build/fuzz $(FUZZ_SECONDS)

fuzz-build: ready
	@sh tools/packages.sh slow
	@if command -v clang++-19 >/dev/null; then $(call configure,fuzz) && $(call compile,fuzz,fuzz); \
	  else echo "fuzzers: left out: there is no clang++-19"; fi

# nvcc is looked for in PATH, then where NVIDIA's packages put it.
NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
configure-cuda = $(call configure,$(1),$(2) -DCMAKE_CUDA_COMPILER=$(NVCC))
# $(call compile-cuda,PRESET): that the CUDA sources compile, where there is nvcc.
compile-cuda = if $(MAKE) -s nvcc >/dev/null 2>&1; \
  then $(call configure-cuda,$(1)) && $(call compile,$(1),cuda_objects); \
  else echo "CUDA sources ($(1)): skipped: no nvcc (12.8 or newer)"; fi

cuda: nvcc ## build with the CUDA rows into build/cuda (needs nvcc 12.8 or newer; no GPU needed to build)
	@sh tools/packages.sh build
	@$(call configure-cuda,cuda,-DSEACLIFF_TESTS=OFF)
	@$(call compile,cuda,seacliff)
	@echo "built build/cuda/seacliff"

gpu-pack: nvcc ## build build/gpu-pack/seacliff and gpu_test, which run on GPU machines with nothing installed
	@sh tools/packages.sh build test
	@sh tools/sources.sh build/sources
	@$(call configure-cuda,gpu-pack)
	@$(call compile,gpu-pack,seacliff gpu_test)
	@sh tools/check_pack.sh build/gpu-pack/seacliff show kernels --device cpu
	@sh tools/check_pack.sh build/gpu-pack/gpu_test --gtest_list_tests

# The self-contained binaries if they are there, else those of a build here.
GPU_BINARIES = $(if $(wildcard build/gpu-pack/gpu_test),build/gpu-pack,build/cuda)
gpu-test: gpu-binaries ## run the tests that need a GPU, with build/gpu-pack if it is there, else build/cuda
	@sh tests/gpu/run.sh $(GPU_BINARIES)
sanitize: gpu-binaries ## run the CUDA rows and two short generations under compute-sanitizer
	@sh tests/gpu/sanitize.sh $(GPU_BINARIES)

.PHONY: gpu-binaries
gpu-binaries: $(if $(filter build/cuda,$(GPU_BINARIES)),nvcc ready)
	@test $(GPU_BINARIES) = build/gpu-pack || \
	  { $(call configure-cuda,cuda,-DSEACLIFF_TESTS=ON) && $(call compile,cuda,seacliff gpu_test); }

.PHONY: nvcc
nvcc:
	@test -n "$(NVCC)" || { echo "make: needs CUDA 12.8 or newer, and nvcc is neither in PATH" \
	  "nor in /usr/local/cuda/bin (make cuda NVCC=/path/to/nvcc)" >&2; exit 1; }
	@version=$$($(NVCC) --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p'); \
	  printf '12.8\n%s\n' "$$version" | sort -VC || { \
	  echo "make: needs CUDA 12.8 or newer, and $(NVCC) is $$version" >&2; exit 1; }; \
	  echo "CUDA $$version: $(NVCC)"

format: ## clang-format every source
	@sh tools/packages.sh format
	@python3 tests/taste/check.py format --fix

docs: build ## refresh the printed tables in README.md and docs/
	@python3 tests/taste/check.py docs --fix --binary build/cpu/seacliff

clean: ## remove build/
	rm -rf build

.PHONY: ready
ready: .venv/ready
	@sh tools/packages.sh build test

.venv/ready: requirements-test.txt packages.txt
	@sh tools/packages.sh build test
	@python3 -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@
