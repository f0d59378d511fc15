# Tasks, one line each. `make` lists them.
BIN := .venv/bin
PY := core/ciliate $(wildcard plugins/*/ciliate_*) $(wildcard examples/*/ciliate_*) $(wildcard examples/*/*.py) tests
.DEFAULT_GOAL := help
.PHONY: help setup bpf shim lint format types contracts check test bench demo proto manifests lock clean

help:       ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*##/  make \1\t/' | expand -t 18

setup:      ## system packages, .venv with pinned packages, bpffs (fast when done)
	@scripts/setup

bpf: setup  ## compile the data path
	@$(MAKE) --no-print-directory -C bpf

shim: setup ## compile the CNI binary and ciliate-hold, static
	@$(MAKE) --no-print-directory -C plugins/cni/shim
	@$(MAKE) --no-print-directory -C plugins/node/hold

lint: setup ## ruff: rules and format
	@$(BIN)/ruff check --quiet --output-format=concise . && $(BIN)/ruff format --check --quiet . && echo "ruff: fine"

format: setup ## let ruff format and mend what it can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

types: setup ## mypy --strict, tests included
	@$(BIN)/mypy $(PY)

contracts: setup ## import-linter: the core knows no plugin, plugins know only contracts
	@$(BIN)/lint-imports --no-cache

check: lint types contracts ## all that needs no machine

test: setup bpf shim check ## everything; what this machine can't run is skipped by name, with the reason; pytest's closing line comes last
	@$(BIN)/pytest -q $(ARGS)

bench: setup bpf shim ## all budgets, in full, with figures
	@CILIATE_BENCH=full $(BIN)/pytest -q -s tests/bench $(ARGS)

demo: setup bpf shim ## a lab, a three-tier application, policies, an agent killed under traffic, and all its flows; under 3 minutes
	@$(BIN)/python -m ciliate_lab.demo

proto: setup ## what plugins/hubble's .proto files come to in Python
	@scripts/proto

manifests: setup ## what deploy/ciliate.yaml is: an installation with nothing chosen
	@{ echo "# Made by \`make manifests\`: what \`ciliate install --dry-run\` prints."; $(BIN)/ciliate install --dry-run; } > deploy/.ciliate.yaml && mv deploy/.ciliate.yaml deploy/ciliate.yaml || { rm -f deploy/.ciliate.yaml; false; }

lock: setup ## pin what the rooms depend on, with hashes, into constraints.txt
	@scripts/lock

clean:      ## remove what was built (not .venv)
	@rm -rf build && { $(MAKE) --no-print-directory -C bpf clean; $(MAKE) --no-print-directory -C plugins/cni/shim clean; $(MAKE) --no-print-directory -C plugins/node/hold clean; } 2>/dev/null || true
