# Fineline. `make help` lists what there is to do.

# No cgo anywhere: a static binary, and a rule that rules_test.go checks.
export CGO_ENABLED := 0

CACHE := $(or $(FINELINE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/fineline)
RESULTS := build/test
REPORT := build/testreport

LINT_VERSION := v2.15.0
LINT_DIR := $(CACHE)/tools/golangci-lint-$(LINT_VERSION)
LINT := $(LINT_DIR)/golangci-lint

FUZZTIME ?= 30s
SOAK ?= 100

# Packages whose tests depend on the kernel run once more on another one, where KVM is hardware KVM (under emulation).
SVM_PACKAGES ?= ./guest/svm/probe ./memory ./vmm/kvm ./vmm/vector ./vmm ./cmd/fineline
SVMTEST ?= go run ./guest/svm/cmd/svmtest -json -timeout 45m -bin ./cmd/fineline $(SVM_PACKAGES)

KVM_USABLE := $(shell test -r /dev/kvm -a -w /dev/kvm && echo yes)
# Where KVM is hardware, the host runs Linux guests itself.
KVM_HARDWARE := $(if $(KVM_USABLE),$(shell grep -Eqw 'vmx|svm' /proc/cpuinfo && echo yes))
HOST_TIER := $(if $(KVM_USABLE),unit+host,unit)

.PHONY: help build images generate generate-check demo test test-host test-svm test-total soak race lint fuzz bench deps clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/fineline, and bin/fineline-guest for Linux guests
	go build -trimpath -o bin/ ./cmd/fineline ./cmd/fineline-guest

images: ## rebuild the tiny guests in place (the committed ones are these bytes)
	$(MAKE) -C images

generate: ## rewrite the committed assembly
	cd coherence/diff && go generate

# In a copy, so that the tree stays as it is.
generate-check:
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && cp -r coherence/diff "$$copy" && \
		(cd "$$copy/diff" && go generate generate.go) && \
		diff -r coherence/diff "$$copy/diff" || { echo "the assembly is not what its generator writes: make generate"; exit 1; }

demo: build ## two VMM processes, a live migration under load, the numbers
	./bin/fineline demo

# Every tier runs though another fails; the total says what failed.
test: deps ## all tests, in three tiers: unit, host (/dev/kvm), svm (emulated hardware KVM)
	@rm -rf $(RESULTS) && mkdir -p $(RESULTS)
	@go build -o $(REPORT) ./guest/testreport/cmd/testreport
	@$(if $(KVM_USABLE),,echo "no usable /dev/kvm here: the tests that need one run in the svm tier only")
	-@$(MAKE) --no-print-directory test-host
	-@$(MAKE) --no-print-directory test-svm
	@$(REPORT) -total $(RESULTS)/host.json $(RESULTS)/svm.json

test-host:
	@$(if $(KVM_HARDWARE),go run ./images/linux/cmd/linuximage -o build/linux)
	@$(if $(KVM_HARDWARE),FINELINE_LINUX_DIR=$(CURDIR)/build/linux) $(REPORT) -tier $(HOST_TIER) -o $(RESULTS)/host.json -events $(RESULTS)/host.events -- go test -json -count=1 -timeout 20m ./...

test-svm:
	@$(REPORT) -tier svm -o $(RESULTS)/svm.json -events $(RESULTS)/svm.events -quiet -- $(SVMTEST)

soak: deps ## migrations as often as acceptance wants: 100 in each cell of the matrix, 10 of a Linux guest in each mode; all stalls
	FINELINE_SOAK=$(SOAK) go test -count=1 -timeout 6h -v -run TestMatrix ./cmd/internal/matrix
	FINELINE_STALLS=all go test -count=1 -timeout 1h -v -run '^(TestOwnershipInEveryMode|TestOwnershipKept)$$' ./cmd/fineline
	go run ./guest/svm/cmd/svmtest -v -timeout 1h -env FINELINE_SOAK=$(SOAK) -run TestLinuxMigratesInEveryMode -bin ./cmd/fineline ./cmd/fineline

race: ## the unit and host tests under the race detector (which needs a C compiler)
	CGO_ENABLED=1 go test -race ./...

lint: $(LINT) generate-check ## go vet, golangci-lint (into the cache on first use), and is generated code current?
	go vet ./...
	cd coherence/diff/asm && go vet .
	$(LINT) run ./...

$(LINT):
	@mkdir -p $(LINT_DIR)
	GOBIN=$(LINT_DIR) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

fuzz: ## every fuzz target for FUZZTIME (30s)
	@set -e; for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s $$pkg; \
		done; \
	done

bench: build ## the figures of docs/benchmarks.md, each beside its peer
	./bin/fineline bench boot
	./bin/fineline bench diff
	./bin/fineline bench exits
	./bin/fineline bench migrate --peer all --runs 10
	./bin/fineline bench migrate --peer all --link 1Gbit --only hot-4096,hot-65536
	./bin/fineline bench migrate --peer qemu --link 100Mbit --only hot-4096
	./bin/fineline bench migrate --peer qemu --only small-64m,large-8g,above-8g
	./bin/fineline bench migrate --peer none --local --only small-64m,hot-65536,large-8g
	./bin/fineline bench postcopy --runs 10
	./bin/fineline bench postcopy --only small-64m,large-8g
	./bin/fineline bench track

deps: ## the host programs that tests need, by apt-get when root
	@go run ./images/linux/cmd/linuximage -tools

clean: ## remove what was built here (not the cache)
	rm -rf bin build
	$(MAKE) -C images clean
