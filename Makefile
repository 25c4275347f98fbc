# Short names for the commands of CONTRIBUTING.md and docs/testing.md.

FUZZTIME ?= 30s
BENCHTIME ?= 10s
BENCHFLAGS ?=
SEED ?= 1
SEEDS ?= 1000
CHAOSTIME ?= 10m

.PHONY: help build test test-all race lint fuzz fuse bench bench-peers chaos simulate mutants demo ci clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

build: ## the program, as bin/locknode
	go build -o bin/ ./cmd/locknode

test: ## what to run before each commit, in a few minutes
	go test ./...

test-all: ## all tests, also those that build many programs or prove the same once more
	TEST_ALL=1 go test -timeout 20m ./...

race: ## the tests with the race detector, in another order, without the long ones
	GORACE=suppressions=$(CURDIR)/internal/proof/racedetector/suppressions go test -race -shuffle=on -short ./...

lint: ## formatting, vet, and the linter at the version of .ci/run
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	$$(go env GOPATH)/bin/golangci-lint run ./...

fuzz: ## every fuzz target for FUZZTIME, two at a time
	go run ./internal/proof/tools/fuzzall -time $(FUZZTIME)

fuse: ## disks that fail, hang, lie and lose power, and clusters on them (Linux, root)
	cd test/fuse && go vet ./... && go test ./...
	go test ./test/integration -count 1 -run 'Disk|Power|Forgotten|Lies'

bench: build ## the workloads of locknode bench, each for BENCHTIME
	bin/locknode bench --workload uncontended --workers 64 --duration $(BENCHTIME)
	bin/locknode bench --workload uncontended --workers 256 --duration $(BENCHTIME)
	bin/locknode bench --workload handoff --workers 16 --duration $(BENCHTIME)
	bin/locknode bench --workload try --workers 64 --duration $(BENCHTIME)
	bin/locknode bench --workload read --workers 64 --duration $(BENCHTIME)
	bin/locknode bench --workload failover --workers 4 --duration 30s

bench-peers: ## Locknode beside etcd, Redis and Redlock, in a table, in 16 minutes (Linux)
	cd bench && go run . $(BENCHFLAGS)

chaos: build ## real processes broken in every way for CHAOSTIME, 500 kills, and the drill
	-go build -C test/fuse -o ../../bin/faultfs ./cmd/faultfs
	bin/locknode chaos --duration $(CHAOSTIME) --html bin/chaos.html
	bin/locknode chaos --faults kill-leader,kill-one,kill-all --cycles 500 --html bin/kills.html
	bin/locknode chaos --drill guarded-set --adds 100000
	bin/locknode chaos --drill guarded-set --adds 100000 --unguarded

simulate: ## SEEDS seeds of 12 virtual minutes from SEED on, each repeatable
	go run ./test/detsim ./test/simulation -v -timeout 24h -run TestSeedsInProcesses -seed $(SEED) -seeds $(SEEDS) -sim 12m

mutants: ## every deliberate bug, each caught by its test
	go run ./test/mutants

demo: ## three processes, both stories, a leader that is killed
	go run ./cmd/locknode demo

ci: ## everything that must pass before a change is taken
	.ci/run

clean: ## what was built
	rm -rf bin
