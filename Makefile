# Everything runs in .venv; what is made is remembered in .venv/.*, so a second call starts at once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PYTEST_PROCESSES ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup run test lint seeds bench ui clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.installed .venv/.data .venv/.databases ## Install into .venv, fetch the data, make the databases

run: setup ## Run the whole pipeline: whatever has changed since the last run
	@$(BIN)/proximal run

test: .venv/.installed-test .venv/.data lint ## Run lint and all tests, as .ci/run does
	$(BIN)/pytest -n $(PYTEST_PROCESSES) --dist loadfile

lint: .venv/.installed-test ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/mypy components flows
	$(BIN)/lint-imports

seeds: setup ## Run three seeds, each in a clone of its own, and print the table of README
	@$(BIN)/proximal seeds

bench: setup ## Measure ours beside TRL on the same work (an hour; makes an environment for TRL)
	$(BIN)/python tests/benchmarks/peer.py --growth

ui: setup ## Open the MLflow UI on this machine
	@$(BIN)/proximal ui

clean: ## Remove what runs leave behind: workspaces, records, databases; DVC's cache and data/ stay
	rm -rf artifacts .work .prefect mlflow.db* mlartifacts .venv/.databases

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: Python 3.11 is needed, found: $$($(PYTHON) --version); say where it is: make PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

.venv/.data: data.dvc | .venv/.installed
	$(BIN)/dvc pull data.dvc
	$(BIN)/dvc fetch  # the figures of the last commit, for `dvc metrics diff`; says so where nobody has pushed them
	@touch $@

.venv/.databases: .venv/.installed
	$(BIN)/proximal prepare
	@touch $@
