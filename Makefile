# SPDX-License-Identifier: LGPL-2.1-or-later
# A thin front of meson: `make run` and `make test` do all their own set-up. See README.md.
PREFIX ?= /usr/local
MESON_OPTS ?=

.PHONY: all programs run setup test bench lab asan ubsan tsan fuzz doc check-style install clean

all: build/build.ninja
	ninja -C build

programs: build/build.ninja
	ninja -C build programs

build/build.ninja:
	meson setup build --buildtype=release --prefix=$(PREFIX) $(MESON_OPTS)

setup:
	tools/setup

# Builds a Debian and starts it on this terminal.
run:
	tools/setup --run
	$(MAKE) programs
	tools/run-guest

test:
	tools/setup --tests
	$(MAKE) all
	tools/run-tests

bench: setup
	$(MAKE) all
	tools/run-bench

# A shell on a machine with the kernel's own KVM and this build.
lab: setup
	$(MAKE) all
	tests/lab/lab shell

# Each in a folder of its own, with the unit tests run.
asan:
	[ -f build-asan/build.ninja ] || meson setup build-asan -Db_sanitize=address,undefined
	ninja -C build-asan
	meson test -C build-asan --suite unit --print-errorlogs

ubsan:
	[ -f build-ubsan/build.ninja ] || meson setup build-ubsan -Db_sanitize=undefined
	ninja -C build-ubsan
	meson test -C build-ubsan --suite unit --print-errorlogs

tsan:
	[ -f build-tsan/build.ninja ] || meson setup build-tsan -Db_sanitize=thread
	ninja -C build-tsan
	meson test -C build-tsan --suite unit --print-errorlogs

fuzz:
	[ -f build-fuzz/build.ninja ] || CC=clang meson setup build-fuzz -Dfuzz=true \
		-Db_sanitize=address,undefined -Db_lundef=false
	ninja -C build-fuzz
	tools/run-fuzz build-fuzz

doc: all
	ninja -C build man/all

check-style:
	tools/check-style

install: all
	meson install -C build --no-rebuild

clean:
	rm -rf build build-asan build-ubsan build-tsan build-fuzz
