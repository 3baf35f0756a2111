# Everything runs in .venv, which the first call builds and later calls leave alone (.ci/venv).
#   PYTHON=python3.13   another interpreter; without it one whose SQLite can load extensions
#   ARGS="..."          more arguments for the program behind the target
#   JOBS=2              processes of pytest

JOBS ?= 2
SEED ?= 1
ARGS ?=

VENV := .venv/bin
PYTEST := $(VENV)/python -m pytest -q -n $(JOBS) --dist loadgroup

export PYTHON

.DEFAULT_GOAL := help
.PHONY: help run test test-all check format reference demo sim bench servers clean venv venv-dev

help: ## these lines
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

run: venv ## start a node; the first time it founds a mesh (CORTEX_HOME=DIR: where its data is)
	@exec $(VENV)/cortex-node run --init $(ARGS)

test: venv-dev servers ## the test suite, without what takes long
	@$(PYTEST) -m "not slow" $(ARGS)

test-all: venv-dev servers ## everything, also what takes long
	@$(PYTEST) --hypothesis-profile=thorough $(ARGS)

check: venv-dev ## format, lint, types, imports
	@$(VENV)/ruff format --check --quiet .  || { echo "make format mends this"; exit 1; }
	@$(VENV)/ruff check --quiet .
	@$(VENV)/mypy
	@said=$$($(VENV)/lint-imports 2>&1) || { echo "$$said"; exit 1; }; echo "$$said" | tail -n 1

format: venv-dev ## format the code, and mend what lint can mend
	@$(VENV)/ruff format .
	@$(VENV)/ruff check --fix .

reference: venv ## write node/REFERENCE.md anew
	@$(VENV)/python -m node.reference

demo: venv ## two nodes: both go offline, both write, both agree
	@$(VENV)/python bench/demo.py $(ARGS)

sim: venv-dev ## replay one simulated run: make sim SEED=7
	@$(VENV)/python tests/sim/run.py --seed $(SEED) $(ARGS)

bench: venv ## measure this machine
	@$(VENV)/python bench/run.py $(ARGS)

servers: ## install what the tests need besides Python packages (as root)
	@.ci/servers

clean: ## remove .venv and caches; no node's data
	rm -rf .venv .venv.lock build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@.ci/venv run

venv-dev:
	@.ci/venv dev
