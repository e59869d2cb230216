# Debian's own kernels under qemu. Works alone too: make -f mk/kernels.mk test-kernels
PYTHON ?= build/venv/bin/python
KERNELS ?= 6.1
VM_TESTS ?= tests/bpf
PYTEST_ARGS ?=

.PHONY: test-kernels
ifneq ($(firstword $(MAKEFILE_LIST)),mk/kernels.mk)
test-kernels: setup-dev build
endif
test-kernels: ## the data path's tests on Debian's own kernels: KERNELS=6.1 (default), 5.10, 6.12 or all
	@PYTHONPATH=tests $(PYTHON) -m vm.boot --kernels $(KERNELS) --tests $(VM_TESTS) -- $(PYTEST_ARGS)
