# The two commands of the README, and the longer tiers beside them.
.PHONY: up test down conformance upstream-e2e machines bench crash

up: ## build, run in the background, deploy the sample and print its answer
	@scripts/up

down: ## stop what `make up` started
	@scripts/knoll down

test: ## everything CI checks
	@scripts/test

conformance: ## Knative's own suites against a fresh instance
	@scripts/conformance

upstream-e2e: ## Knative's own end-to-end suite against a fresh instance, twenty minutes
	@scripts/conformance --suite e2e

machines: ## reboots and power cuts of bare virtual machines, one for each layout of control groups
	@scripts/machines

bench: ## benchmarks against peers
	@scripts/bench

crash: ## 1,000 rounds of kill -9 against the store
	@KNOLL_CRASH_ROUNDS=1000 cargo test -p knoll-store --test crash
