# Everything happens in .venv/ of this checkout. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEBIAN := postgresql bubblewrap crun gcc libc6-dev

.DEFAULT_GOAL := help
.PHONY: help setup lint test drills kill lies chaos demo bench wheel system-packages oidc-provider clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv and install Clawback with what its demo and tests need

$(READY): pyproject.toml setup.py constraints.txt $(wildcard enforcement/native/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python >= 3.11 is needed, $(PYTHON) is older" >&2; echo "hint: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) has no venv module" >&2; echo "hint: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
	@touch $(READY)

lint: setup  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# With AGAIN=1, what failed is tried once more, alone: on a machine that others share, a server or kernel may take longer
# than any limit. It is listed as a failure first, so that a test that is unsteady is seen, and mended.
AGAIN ?=
once_more = || { echo "once more, alone:"; $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }
# What asks servers waits for them a third of the time, so half as many workers again as there are processors.
waiting = $(shell echo $$(($$(nproc) * 3 / 2)))
tier = $(BIN)/python -m pytest --numprocesses $(1) --dist worksteal -m '$(2)' $(if $(AGAIN),$(once_more))

test: setup  ## all tests: the quick ones, those with servers, those with sandboxes
	$(call tier,auto,not kernel and not parts and not slow)
	$(call tier,$(waiting),(parts or slow) and not kernel)
	$(call tier,auto --maxprocesses 2,kernel)

demo: setup  ## a rogue agent is detected, contained, cut off, restored
	@$(BIN)/clawback demo

kill: setup  ## SIGKILL every part at every step of a response, one incident for each part
	CLAWBACK_KILL=each $(BIN)/python -m pytest tests/system/test_kill.py

drills: setup  ## every tabletop drill; `make test` runs every second one
	CLAWBACK_DRILLS=all $(BIN)/python -m pytest tests/tabletop

lies: setup  ## each action is lied to in every way there is, some twenty minutes; `make test` takes a few ways of each
	CLAWBACK_LIES=all $(BIN)/python -m pytest tests/lies

chaos: setup  ## SIGKILL at 1,000 seeded points over all playbooks, with parts down, slow, failing, hanging, lying; real servers; the real stack
	@$(BIN)/python tests/chaos/run.py --kills 500 & other=$$!; \
	$(BIN)/python tests/chaos/run.py --kills 500 --seed 1000000; here=$$?; wait $$other && exit $$here
	$(BIN)/python tests/chaos/run.py --real --trials 30
	CLAWBACK_CHAOS=10 $(BIN)/python -m pytest tests/chaos

bench: setup  ## measure; writes benches/results.json and prints a table
	@$(BIN)/python -m benches

wheel: setup  ## build the wheel into dist/
	rm -rf dist build
	$(BIN)/python -m build --wheel --outdir dist . > build.log 2>&1 || { cat build.log; exit 1; }
	@rm -f build.log; ls dist

system-packages:  ## what Debian gives: PostgreSQL for tests, bubblewrap and crun for the benches; as root
	apt-get install --yes --no-install-recommends $(DEBIAN)

oidc-provider:  ## npm's oidc-provider, a real identity provider for tests, into .node/
	@mkdir -p .node/oidc-provider && cp tests/oidc_provider/package.json .node/oidc-provider/
	npm install --prefix .node/oidc-provider --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error

clean:  ## remove what the other targets made
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .node src/clawback.egg-info
