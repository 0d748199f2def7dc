# Two commands do all of it on a machine with Python 3.11+, make and a package registry: `make demo` and `make test`.

VENV := .venv
BIN := $(VENV)/bin
EXTRAS := dev,docs,containers,documents,encryption,faststream,reload,transcription
PINNED := $(EXTRAS),bench
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-chaos test-brokers test-compose chaos sabotage lint format docs check-wheel bench broker constraints clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## a recording becomes a transcript, a note and documents (ARGS=--wait keeps RabbitMQ's UI up at the end)
	@scripts/ensure-broker --or-memory
	@$(BIN)/bus demo $(ARGS)

# What tests start in processes of their own imports the bus anew each time: it is compiled once, even where the environment says not to.
# Faults are mostly waited for (a node's start, an election, a retry's second), so they run beside the others: the first of four workers
# begins with them, and the others take from its end.
test: export PYTHONDONTWRITEBYTECODE =
test: $(STAMP) ## unit tests, which need no broker, then everything else on a real RabbitMQ
	@echo "test: unit tests"
	@$(BIN)/python -m pytest -q tests/unit
	@env -u BUS_URL scripts/ensure-broker
	@echo "test: the rest, on RabbitMQ, and faults while messages flow on nodes that may be killed"
	@$(BIN)/python -m pytest -q --ignore=tests/unit --numprocesses=4 --dist=worksteal

test-chaos: $(STAMP) ## the ledger's short form: faults while messages flow, and what was lost (the long form: make chaos)
	@env -u BUS_URL scripts/ensure-broker
	@echo "test: faults, on RabbitMQ nodes that may be killed"
	@$(BIN)/python -m pytest -q tests/chaos --numprocesses=3 --dist=worksteal

test-brokers: $(STAMP) ## conformance and integration on each RabbitMQ that can be had: this machine's, 4.0 and 4.3 in containers
	@$(BIN)/python scripts/test_brokers.py $(ARGS)

test-compose: ## bring docker-compose.yml up, run the demo in it, take its broker away for a while, and remove it
	@scripts/test-compose

chaos: $(STAMP) ## the ledger's long form: 100,000 messages a fault class, resumed where it was left (ARGS="--only kill-broker", ARGS=--list)
	@scripts/ensure-broker
	@$(BIN)/python -m tests.chaos $(ARGS)

sabotage: $(STAMP) ## breaks the bus in many ways at run time; the test that is named for each has to notice (ARGS=ack-first for one)
	@scripts/ensure-broker
	@$(BIN)/python -m tests.chaos.sabotaging $(ARGS)

lint: $(STAMP) ## ruff's rules and format, mypy strict, the layers, and the rules of the language
	@echo "lint: ruff check, ruff format, mypy, import-linter, check_prose"
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "lint: not formatted; run: make format" >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo
	@$(BIN)/python scripts/check_prose.py

format: $(STAMP) ## let ruff format the code and mend what it can
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format

docs: $(STAMP) ## build the documentation into site/, strictly (ARGS=serve shows it on http://127.0.0.1:8000)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs $(or $(ARGS),build)

check-wheel: $(STAMP) ## build the wheel, install it alone, and see what it brings and how long its imports take
	@$(BIN)/python scripts/check_wheel.py

bench: $(STAMP) ## measure the bus beside its peers (15 minutes; ARGS=--quick two, ARGS="--only rpc" one work)
	@scripts/ensure-broker
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[bench]"
	@$(BIN)/python -m benchmarks $(ARGS)

broker: $(STAMP) ## a private RabbitMQ with its management UI, until Ctrl-C
	@scripts/ensure-broker
	@$(BIN)/bus broker $(ARGS)

constraints: $(STAMP) ## resolve the dependencies anew and pin them in constraints.txt
	@echo "constraints: resolving .[$(EXTRAS)]"
	@$(BIN)/python scripts/pin.py ".[$(PINNED)]" constraints.txt

clean: ## remove the environment, the caches and what was built
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean: done"

# Made anew when a dependency or a pinned version changes, and only then.
$(STAMP): pyproject.toml constraints.txt
	@scripts/make-venv $(VENV)
	@echo "setup: installing the project and its pinned dependencies into $(VENV) (a minute or two, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@
