# The two C programs: static, so that they run in any namespace of any distribution. musl where it is there: 50 kB
# instead of 700, and a start three times faster.
STATIC_CC ?= $(shell command -v musl-gcc || echo gcc)
C_FLAGS := -std=gnu11 -O2 -Wall -Wextra -Wshadow -Werror -static -s

build/hedgerow-cni: cni/hedgerow-cni.c
build/hedgerow-relay: relay/hedgerow-relay.c
build/hedgerow-cni build/hedgerow-relay:
	@mkdir -p build
	$(STATIC_CC) $(C_FLAGS) $< -o $@.new && mv $@.new $@
