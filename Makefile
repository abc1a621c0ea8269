# The chores of this repository. Plain `make` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:

# Where Debian keeps nginx and mkfs.ext4; a plain user's PATH lacks them.
export PATH := $(PATH):/usr/sbin:/sbin
export GOTESTFLAGS

tool := go tool -modfile=tools/go.mod

PKG         ?= ./...
GOTESTFLAGS ?=
FUZZTIME    ?= 5s
BENCH       ?= .
COUNT       ?= 6
TOKENS      ?= 1M
BASE        ?=
MINUTES     ?= 10
SEED        ?= new

# What tokenledger version says: the last tag, the commit, and the commit's time, so
# that the same commit gives the same program. Without Git, go's own stamps count.
VERSION ?= $(shell git describe --tags --exact-match 2>/dev/null)
COMMIT  ?= $(shell git describe --always --abbrev=40 --exclude='*' --dirty 2>/dev/null)
DATE    ?= $(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)
stamp    = -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## Build bin/tokenledger, static
	CGO_ENABLED=0 go build -trimpath -ldflags "$(stamp)" -o bin/tokenledger ./cmd/tokenledger

test: deps ## Run the tests in their short form, some minutes (PKG=./events)
	ops/ci/memory ops/ci/tests short $(PKG)

full: ## Run all tests, with the race detector, as CI does (PKG=./events)
	@ops/ci/deps race
	ops/ci/memory ops/ci/tests full $(PKG)

check: gofumpt vet staticcheck current test ## Everything to run before a commit

fmt: ## Format the Go files
	$(tool) gofumpt -w .

fuzz: ## Fuzz every target for FUZZTIME=5s, one after another
	FUZZTIME=$(FUZZTIME) ops/ci/fuzz $(PKG)

benchtool: ## Build bin/tokenledger-bench, which compares a check with Redis and others
	CGO_ENABLED=0 go -C ops/bench build -trimpath -o $(CURDIR)/bin/tokenledger-bench ./tokenledger-bench

bench: benchtool ## Run the benchmarks COUNT=6 times, benchstat at the end (BENCH=., BASE=main)
	BASE='$(BASE)' BENCH='$(BENCH)' COUNT=$(COUNT) ops/ci/bench $(PKG:./...=)

bench-quick: benchtool ## Compare a check with a Go map, within a minute for TOKENS=1M
	bin/tokenledger-bench --quick --tokens $(TOKENS)

worlds: ## Explore small worlds of leases and barriers, without the race detector
	go test -count=1 ./ops/leasemodel

matrix: ## Try every command as everybody on everything, without the race detector
	ops/ci/memory go test -count=1 ./ledger -run 'Matrix|OneEventForAll|NeverMore|LargeAccount'

allocations: ## What checks allocate, which the race detector hides
	go test -count=1 ./events ./projector/... ./verifier/... -run 'Alloc|NoDisk|BoottimeBefore|Nothing|Buffer'

model: ## Explore larger worlds of leases and barriers, for some minutes
	go test ./ops/leasemodel -run NoReceipt -v -timeout 2h -args -deep

chaos: deps ## Faults on real clusters, mixed at random for MINUTES=10 (SEED=new)
	TOKENLEDGER_TEST_SEED=$(SEED) go test ./ops/clustertest -chaos -chaos.minutes=$(MINUTES) -v -timeout=3h $(GOTESTFLAGS)

soak: deps ## Run the tests again and again for MINUTES=10, with new seeds (PKG=./events)
	ops/ci/memory ops/ci/soak $(MINUTES) $(PKG)

generate: ## Write the generated files again
	go generate ./...

compose: build ## Run what docker-compose.yml says, without Docker (needs root)
	@ops/ci/deps compose
	go -C ops/deploy/composetest test -count=1 $(GOTESTFLAGS) ./...

browser: ## Call from pages in a real Chromium
	@ops/ci/deps browser
	go -C ops/browsertest test -count=1 $(GOTESTFLAGS) ./...

demo: build ## One ledger, three verifiers and a client, in one process
	bin/tokenledger demo

clean: ## Remove what make build made
	rm -rf bin

# The parts of check, which .ci/run takes one by one.

deps:
	@ops/ci/deps $(if $(findstring -race,$(GOTESTFLAGS)),race)

gofumpt:
	@unformatted=$$($(tool) gofumpt -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted; run make fmt:"; echo "$$unformatted"; exit 1; fi >&2

vet:
	go vet ./...
	go -C ops/bench vet ./...
	go -C ops/deploy/composetest vet ./...
	go -C ops/browsertest vet ./...

staticcheck:
	$(tool) staticcheck ./...
	go -C ops/bench tool -modfile=$(CURDIR)/tools/go.mod staticcheck ./...
	go -C ops/deploy/composetest tool -modfile=$(CURDIR)/tools/go.mod staticcheck ./...
	go -C ops/browsertest tool -modfile=$(CURDIR)/tools/go.mod staticcheck ./...

current:
	ops/ci/current

.PHONY: help build test full check fmt fuzz benchtool bench bench-quick chaos soak worlds matrix allocations model generate compose browser demo clean deps gofumpt vet staticcheck current
