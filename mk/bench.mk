# Side by side with the others: the numbers of the README. Never part of a test.
BENCH_CC ?= $(shell command -v musl-gcc || echo gcc)
BENCH_ARGS ?=

.PHONY: bench
bench: setup-dev build build/bench/netbench ## Hedgerow beside Docker, Swarm, flannel's way and plain routes; writes build/bench.json (root or sudo)
	@$(SUDO) $(PYTHON) -m bench $(BENCH_ARGS)

build/bench/netbench: bench/netbench.c
	@mkdir -p build/bench
	$(BENCH_CC) -std=gnu11 -O2 -Wall -Wextra -Wshadow -Werror -static -s $< -o $@.new && mv $@.new $@
