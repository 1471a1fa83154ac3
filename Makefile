# `make` alone lists the targets. Building, `make test` and `make run` need Go, git, make and (for the race
# detector) a C compiler; the others say what they lack.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS  += --no-print-directory

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BUILDINFO := github.com/pointsmanhq/pointsman/pkg/buildinfo
GO      ?= go
MODULES := proto pkg router wsnode integration
TOOLS   := $(CURDIR)/.cache/tools

# What runs the tests; CI puts gotestsum here to get counts.
GOTEST  ?= $(GO) test
# Extra arguments, for example ARGS='-run TestNodeKilled -v'.
ARGS    ?=
# The race detector needs cgo, and cgo a C compiler.
CC_FOUND := $(shell command -v $$($(GO) env CC) 2>/dev/null)
RACE     := $(if $(CC_FOUND),-race)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: ## bin/router, bin/wsnode, bin/playground: static, version stamped from git
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X $(BUILDINFO).version=$(VERSION)' -o bin/ \
	  ./router/cmd/router ./wsnode/cmd/wsnode $(wildcard ./integration/cmd/playground)

.PHONY: run
run: build ## the playground: a page where nodes are killed and nothing breaks; KAFKA=host:port ETCD=host:port for real ones
	@exec bin/playground $(if $(KAFKA),--kafka $(KAFKA)) $(if $(ETCD),--etcd $(ETCD)) $(ARGS)

.PHONY: test
test: ## unit tests, core scenarios and whole clusters in one process (race detector, shuffled)
	@$(if $(RACE),,echo 'no C compiler found: running without the race detector')
	$(GOTEST) $(RACE) -shuffle=on -timeout 20m $(ARGS) work
ifneq ($(RACE),)
	@echo 'once more without the race detector, which allocates: the tests that count allocations'
	$(GOTEST) -run Allocat $(ARGS) ./proto/... ./pkg/... ./router/... ./wsnode/...
endif

.PHONY: test-kafka
test-kafka: build ## the same scenarios over real processes: Apache Kafka, etcd, bin/router, bin/wsnode (Java 17, Maven)
	$(GO) run ./integration/cmd/withkafka $(GOTEST) -count=1 -timeout 10m -run '/^kafka$$' $(ARGS) ./wsnode/internal/kafka
	POINTSMAN_STACK=real POINTSMAN_BIN=$(CURDIR)/bin $(GOTEST) -p 1 -count=1 -shuffle=on -timeout 30m $(ARGS) \
	  ./integration/internal/realkafka ./integration/internal/realetcd ./integration/internal/stack ./integration/bench ./integration
	POINTSMAN_STACK=secured POINTSMAN_BIN=$(CURDIR)/bin $(GOTEST) -count=1 -timeout 10m $(ARGS) \
	  -run '^Test(Secured|SecuredAtLength|NodeKilledMidStreamLosesNothing|KafkaRestart)$$' ./integration

.PHONY: several-keys
several-keys: build ## a thousand sockets with fifty keys each over real processes, while nodes and a router are killed
	POINTSMAN_STACK=real POINTSMAN_BIN=$(CURDIR)/bin POINTSMAN_SEVERAL_SOCKETS=1000 $(GOTEST) -v -count=1 -timeout 15m -run '^TestSeveralKeys$$' ./integration

.PHONY: autobahn
autobahn: ## our port of the Autobahn TestSuite, sections 1-7, 9 and 10, over the router's socket code and its client endpoint, with a report
	$(GO) test -v -count=1 -run Autobahn $(ARGS) ./router/internal/clientconn ./router/internal/edge

.PHONY: fuzz
fuzz: ## every fuzz target for SECONDS=10, two at a time
	@GO='$(GO)' tools/fuzz.sh $(or $(SECONDS),10)

.PHONY: vulncheck
vulncheck: $(TOOLS)/govulncheck ## govulncheck over all modules; it needs a way to vuln.go.dev, and says so without one
	@tools/vulncheck.sh $(TOOLS)/govulncheck

.PHONY: catchup
catchup: build ## how long 1,000 clients take that come back 1,000,000 records behind; the times decide (Java 17, Maven; a quiet machine)
	POINTSMAN_STACK=real POINTSMAN_BIN=$(CURDIR)/bin POINTSMAN_FIGURES=1 $(GOTEST) -count=1 -v -timeout 15m -run CatchUp $(ARGS) ./integration

.PHONY: drain-figures
drain-figures: build ## CLIENTS=10000 while nodes and routers are replaced: when they reconnect, how many streams a drain moves (Java 17, Maven)
	POINTSMAN_STACK=real POINTSMAN_BIN=$(CURDIR)/bin POINTSMAN_CLIENTS=$(CLIENTS) $(GOTEST) -count=1 -v -timeout 15m -run RollingDeploy $(ARGS) ./integration

.PHONY: hostile
hostile: build ## attackers against a router: silent, deaf, flooding, lying, guessing; honest clients beside them (STACK=real: over Apache Kafka and etcd; JUDGE=no: delays are printed only; NICE=19: of the attackers)
	POINTSMAN_HOSTILE=1 POINTSMAN_ATTACK_NICE=$(NICE) $(if $(filter no,$(JUDGE)),,POINTSMAN_FIGURES=1) POINTSMAN_STACK=$(or $(STACK),processes) POINTSMAN_BIN=$(CURDIR)/bin $(GOTEST) -count=1 -timeout 5m -run 'TestHostile$$' $(ARGS) ./integration

.PHONY: test-browser
test-browser: build ## the playground page and the console in a real headless Chromium
	POINTSMAN_BROWSER=1 POINTSMAN_BIN=$(CURDIR)/bin $(GOTEST) -count=1 -timeout 10m $(ARGS) ./integration/browser

.PHONY: test-compose
test-compose: images ## containers by deploy/compose.yaml under every fault, and the console on them (Docker, Chromium; images are built locally)
	POINTSMAN_COMPOSE=1 $(GOTEST) -p 1 -count=1 -timeout 20m -run 'Container|PodLifecycle' $(ARGS) ./integration/compose ./integration/browser

.PHONY: test-cluster
test-cluster: ## your own running cluster, under commands of your own: POINTSMAN_TEST_ROUTERS, _KAFKA, _TOPIC, _FAULTS (deploy/README.md)
	$(GOTEST) -count=1 -v -timeout 60m -run TestExistingCluster $(ARGS) ./integration/compose

.PHONY: simulate
simulate: ## SEEDS=10000 seeded schedules of faults against the state machines, in one thread (FROM=1: first seed; SEED=n: one, with its timeline)
	$(GO) run ./integration/cmd/simulate -seeds $(or $(SEEDS),10000) -from $(or $(FROM),1) $(if $(SEED),-seed $(SEED)) $(ARGS)

.PHONY: simulate-mutants
simulate-mutants: ## the simulation against deliberate bugs: each must be caught within 1,000 schedules
	POINTSMAN_MUTANTS=1 $(GOTEST) -count=1 -v -run TestMutants -timeout 30m $(ARGS) ./integration/simulate

.PHONY: continuity
continuity: build ## SECONDS=600 SEED=1 FAULTS=all [OVERLAP=1] [SPARE=0] [CLIENTS=10000]: random faults on real parts, every client judged, into docs/continuity (Java 17, Maven)
	$(GO) build -o bin/ ./integration/cmd/continuity
	@exec bin/continuity -bin bin -out docs/continuity -seconds $(or $(SECONDS),600) -seed $(or $(SEED),1) -faults '$(or $(FAULTS),all)' \
	  -clients $(or $(CLIENTS),10000) $(if $(OVERLAP),-overlap) -spare=$(or $(SPARE),1) $(ARGS)

.PHONY: continuity-short
continuity-short: build ## the same for two minutes each: a fixed seed, and a random one with overlapping faults; pauses are printed, not judged
	$(GO) build -o bin/ ./integration/cmd/continuity
	bin/continuity -bin bin -seconds 120 -quiet 5 -seed 1 -clients 2000 -no-pauses
	bin/continuity -bin bin -seconds 120 -quiet 5 -seed 0 -clients 2000 -no-pauses -overlap

BENCH = bin/bench -bin bin -scenarios '$(SCENARIOS)' -rounds $(or $(ROUNDS),0) -seconds $(or $(SECONDS),0) $(if $(COMPARE),-compare $(COMPARE))

DESIGNS = $(GO) build -o bin/ ./integration/cmd/designs

.PHONY: designs
designs: build ## the other ways to do it: list them, and how each is started (Java 17, Maven; Redis for some)
	@$(DESIGNS)
	@bin/designs list

.PHONY: designs-bar
designs-bar: build ## every design delivers 100,000 records to 1,000 clients; nothing lost, repeated or reordered decides
	@$(DESIGNS)
	@exec bin/designs compare --bar $(ARGS)

.PHONY: compare
compare: build ## all designs at all sizes and under faults, half an hour of a quiet machine, into docs/designs.md; QUICK=1 for a few minutes, written nowhere unless OUT says (Java 17, Maven, Redis, iproute2)
	@$(DESIGNS)
	@exec bin/designs compare $(if $(QUICK),--quick) $(if $(OUT)$(if $(QUICK),,1),--out=$(or $(OUT),docs/designs)) $(ARGS)

.PHONY: bench
bench: build ## what the product costs beside the cheapest program, the short part: SCENARIOS=pace-5000,idle-* ROUNDS=1 SECONDS=5 COMPARE=old.json; a quiet machine (Java 17, Maven)
	$(GO) build -o bin/ ./integration/cmd/bench ./integration/cmd/floor
	@mkdir -p .cache
	@exec $(BENCH) -json .cache/bench.json $(ARGS)

.PHONY: bench-go
bench-go: ## the hot paths as Go benchmarks, six times each, into .cache/bench-go.txt; OLD=FILE compares with an earlier one (benchstat)
	@mkdir -p .cache
	$(GO) test -run '^$$' -bench . -benchmem -count 6 -benchtime 0.3s $(ARGS) ./proto/... ./router/... ./wsnode/... ./pkg/partitioner | tee .cache/bench-go.txt
	$(if $(OLD),$(GO) run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da $(OLD) .cache/bench-go.txt)

.PHONY: bench-full
bench-full: build ## all of it, five rounds, into docs/benchmarks; about an hour; ROUNDS=3 SECONDS=4 for half of it
	$(GO) build -o bin/ ./integration/cmd/bench ./integration/cmd/floor
	@exec $(BENCH) -full -out $(or $(OUT),docs/benchmarks) $(ARGS)

.PHONY: lint
lint: lint-go lint-rules lint-modules lint-alerts ## golangci-lint, the project's own rules, each module built alone, alert rules

.PHONY: lint-go
lint-go: $(TOOLS)/golangci-lint
	$(TOOLS)/golangci-lint run $$($(GO) list -f '{{.Dir}}/...' -m)

.PHONY: lint-rules
lint-rules:
	@cd tools && GOWORK=off $(GO) vet ./... && GOWORK=off $(GO) test -count=1 ./... && GOWORK=off $(GO) run ./rules .. && GOWORK=off $(GO) run ./deployment ..
	$(GO) run ./integration/cmd/readme -check

.PHONY: lint-modules
lint-modules: # a workspace hides missing requires and upward imports
	@for m in $(MODULES); do echo "GOWORK=off $$m"; (cd $$m && GOWORK=off $(GO) build ./... && GOWORK=off $(GO) vet ./...); done

.PHONY: lint-alerts
lint-alerts: # each alert fires and stays quiet in deploy/prometheus/alerts_test.yml
	@if command -v promtool >/dev/null; then \
	  promtool check config deploy/prometheus/prometheus.yml && promtool test rules deploy/prometheus/alerts_test.yml; \
	else echo 'alert rules not checked: promtool is not installed (Debian: prometheus)'; [ -z "$$POINTSMAN_CI" ]; fi

.PHONY: fmt
fmt: $(TOOLS)/golangci-lint ## format all Go code
	$(TOOLS)/golangci-lint fmt $$($(GO) list -f '{{.Dir}}/...' -m)

.PHONY: generate
generate: ## code from the link protocol's schema
	cd tools && GOWORK=off $(GO) run ./protogen -root ../proto -module github.com/pointsmanhq/pointsman/proto link/link.proto

.PHONY: readme
readme: ## the parts of README.md that are made from the code
	$(GO) run ./integration/cmd/readme

.PHONY: client-size
client-size: ## how large the JavaScript client is: as served, and as gzip makes it
	@printf 'client.js: %d bytes, %d with gzip -9\n' $$(wc -c <pkg/clientjs/client.js) $$(gzip -9cn pkg/clientjs/client.js | wc -c)

.PHONY: images
images: build ## local container images of router, wsnode, Kafka and etcd; prints the variables that compose reads
	@deploy/local/images.sh

.PHONY: clean
clean: ## remove what the build and the tests left
	rm -rf bin .cache integration/.work

# The tools are pinned in a module of their own, so that nothing of theirs reaches the programs.
$(TOOLS)/%: tools/go.mod tools/go.sum
	@mkdir -p $(TOOLS)
	cd tools && GOWORK=off $(GO) build -o $@ $$(GOWORK=off $(GO) list -f '{{.ImportPath}}' tool | grep '/$*$$')
