# `make demo` and `make test` need Python 3.11 or later, make and a package registry, and no other set-up.

VENV := .venv
BIN := $(VENV)/bin
EXTRAS := dev,docs,containers,documents,faststream,metrics,otel,postgres,reload,store,transcription
PINNED := $(EXTRAS),bench
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Runs the stages of a target, and prints the seconds of each.
STAGES := scripts/stages
UNIT := $(BIN)/python -m pytest -q tests/unit --numprocesses=2

.DEFAULT_GOAL := help
.PHONY: help demo unit test check test-chaos test-brokers test-pythons test-compose chaos sabotage lint format docs check-wheel bench broker constraints clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## a recording becomes a transcript, a note and documents (ARGS=--wait keeps RabbitMQ's UI up at the end)
	@scripts/ensure-broker --or-memory
	@$(BIN)/bus demo $(ARGS)

# Tests start processes, and each process imports the bus. An empty value makes Python write the
# compiled modules, even if the environment turns that off, so that they are compiled once.
unit test: export PYTHONDONTWRITEBYTECODE =

unit: $(STAMP) ## the unit tests, which need no broker
	@$(STAGES) unit tests "$(UNIT)"

# The tests of faults mostly wait (for the start of a node, an election, a retry), so they run beside
# the others: the first of four workers begins with them, and the other workers steal from its end.
test: $(STAMP) ## the unit tests, then all other tests on a real RabbitMQ, with faults on nodes that may be killed
	@$(STAGES) test \
		unit "$(UNIT)" \
		broker "env -u BUS_URL scripts/ensure-broker" \
		prometheus "scripts/ensure-prometheus" \
		others "$(BIN)/python -m pytest -q --ignore=tests/unit --numprocesses=4 --dist=worksteal"

check: $(STAMP) ## all that must pass before a change is merged: lint, test and demo (.ci/run calls it)
	@$(STAGES) check \
		lint "$(MAKE) --no-print-directory lint" \
		test "$(MAKE) --no-print-directory test" \
		demo "$(MAKE) --no-print-directory demo </dev/null"

test-chaos: $(STAMP) ## the short form of the ledger: faults while messages are sent, and the lost messages (long form: make chaos)
	@env -u BUS_URL scripts/ensure-broker
	@echo "test: faults, on RabbitMQ nodes that may be killed"
	@$(BIN)/python -m pytest -q tests/chaos --numprocesses=3 --dist=worksteal

test-brokers: $(STAMP) ## conformance and integration on each available RabbitMQ: this machine's, 4.0 and 4.3 in containers
	@$(BIN)/python scripts/test_brokers.py $(ARGS)

test-pythons: $(STAMP) ## run `make test` on each Python that is found: on the PATH, of pyenv, or named (ARGS="PYTHON ROOT")
	@$(BIN)/python scripts/test_pythons.py $(ARGS)

test-compose: ## start docker-compose.yml, run the demo in it, stop its broker for a while, and remove it
	@scripts/test-compose

chaos: $(STAMP) ## the long form of the ledger: 100,000 messages for each class of faults; it resumes (ARGS="--only kill-broker", ARGS=--list)
	@scripts/ensure-broker
	@$(BIN)/python -m tests.chaos $(ARGS)

sabotage: $(STAMP) ## break the bus in many ways at run time; the test that is named for each must fail (ARGS=ack-first for one)
	@scripts/ensure-broker
	@$(BIN)/python -m tests.chaos.sabotaging $(ARGS)

lint: $(STAMP) ## ruff's rules and format, mypy strict, the layers, and the rules of the language
	@echo "lint: ruff check, ruff format, mypy, import-linter, check_prose"
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "lint: not formatted; run: make format" >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo
	@$(BIN)/python scripts/check_prose.py

format: $(STAMP) ## let ruff format the code and fix what it can
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format

docs: $(STAMP) ## build the documentation into site/, strictly (ARGS=serve shows it on http://127.0.0.1:8000)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs $(or $(ARGS),build)

check-wheel: $(STAMP) ## build the wheel, install it alone, and check its content and its import times
	@$(BIN)/python scripts/check_wheel.py

bench: $(STAMP) ## measure the bus and its peers (15 minutes; ARGS=--quick for two, ARGS="--only rpc" for one workload)
	@scripts/ensure-broker
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(PIP) --editable ".[bench]"
	@$(BIN)/python -m benchmarks $(ARGS)

broker: $(STAMP) ## start a private RabbitMQ with its management UI, until Ctrl-C
	@scripts/ensure-broker
	@$(BIN)/bus broker $(ARGS)

constraints: $(STAMP) ## resolve the dependencies again and pin them in constraints.txt
	@echo "constraints: resolving .[$(EXTRAS)]"
	@$(BIN)/python scripts/pin.py ".[$(PINNED)]" constraints.txt

clean: ## remove the environment, the caches and the built files
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean: done"

# Runs again if a dependency or a pinned version changes.
$(STAMP): pyproject.toml constraints.txt
	@echo "setup: installing the project and its pinned dependencies into $(VENV) (a minute or two, once)"
	@$(STAGES) setup \
		environment "scripts/make-venv $(VENV)" \
		dependencies "scripts/install-dependencies $(VENV) $(EXTRAS)"
	@touch $@
