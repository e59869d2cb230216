# `make` alone prints what there is to do. Nothing here needs root but what says so; where the user is not root, sudo asks.
PYTHON := build/venv/bin/python
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
MULTIARCH = $(shell gcc -print-multiarch)
UNPRIVILEGED := tests/unit tests/stories tests/contract tests/fuzz tests/simulation tests/project
PRIVILEGED := tests/bpf tests/kernel tests/engines tests/cluster
PYTEST := $(PYTHON) -m pytest
LOCKED := mkdir -p build && flock build/.lock $(MAKE) --no-print-directory -s

.DEFAULT_GOAL := help
.PHONY: help demo test prove check fix build setup setup-dev preflight lab lab-down clean
.DELETE_ON_ERROR:
-include mk/*.mk

help:
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: ## install what is missing, bring a three-node lab up, show who reaches whom (root or sudo)
	@$(MAKE) --no-print-directory preflight
	@mkdir -p build && date +%s >build/.demo-began
	@$(LOCKED) setup build
	@$(SUDO) build/hedgerow lab demo --began "$$(cat build/.demo-began)"

preflight: ## try everything that the lab needs of this machine, and change nothing (root or sudo)
	@$(SUDO) packaging/preflight

setup: build/.setup ## install what is missing: Debian's packages (sudo asks), Python's into build/venv
build/.setup: packaging/setup packaging/packages requirements.lock
	@packaging/setup run
	@touch $@

setup-dev: build/.setup-dev ## the same, with what tests and checks need
build/.setup-dev: packaging/setup packaging/packages requirements-dev.lock
	@packaging/setup dev
	@touch $@ build/.setup

build: build/hedgerow.bpf.o build/hedgerow-cni build/hedgerow-relay build/hedgerow build/.compiled ## the data path, the CNI plug-in, the relay
build/.compiled: $(shell find src -name '*.py')
	@$(PYTHON) -m compileall -q src && touch $@

build/hedgerow.bpf.o: $(wildcard bpf/*.c bpf/*.h)
	@mkdir -p build
	clang -O2 -g -Wall -Wextra -Werror -target bpf -mcpu=v3 -I/usr/include/$(MULTIARCH) -c bpf/hedgerow.bpf.c -o $@.new && mv $@.new $@

build/hedgerow: Makefile
	@mkdir -p build
	@printf '#!/bin/sh\nexec "$$(dirname "$$0")/venv/bin/python" -m hedgerow.cli.main "$$@"\n' >$@ && chmod +x $@

test: ## every test at small counts; the privileged ones need root or sudo
	@$(LOCKED) setup-dev build
ifeq ($(SUDO),)
	$(PYTEST) $(UNPRIVILEGED) $(PRIVILEGED) $(PYTEST_ARGS)
else
	$(PYTEST) $(UNPRIVILEGED) $(PYTEST_ARGS)
	$(SUDO) env HEDGEROW_PROVE=$(HEDGEROW_PROVE) $(PYTEST) -p no:cacheprovider $(PRIVILEGED) $(PYTEST_ARGS)
endif

prove: ## what must be shown, at full counts, and all kernels; goes on where an earlier run stopped; build/proof.json
	HEDGEROW_PROVE=1 $(MAKE) --no-print-directory test PYTEST_ARGS="--timeout 7200 $(PYTEST_ARGS)"
	HEDGEROW_PROVE=1 $(MAKE) --no-print-directory test-kernels KERNELS=all

check: setup-dev ## format, lint, types, house rules: no root
	$(PYTHON) -m ruff format --check . && $(PYTHON) -m ruff check . && $(PYTHON) -m mypy
	$(PYTEST) -q tests/project

fix: setup-dev ## format, and mend what the linter can
	$(PYTHON) -m ruff check --fix . ; $(PYTHON) -m ruff format .

lab: setup build ## bring the lab up (root or sudo)
	@$(SUDO) build/hedgerow lab up

lab-down: ## end it (root or sudo)
	@$(SUDO) build/hedgerow lab down

clean: ## remove what was built; packages and build/venv stay
	rm -rf build/hedgerow* build/images build/.compiled build/.setup*
