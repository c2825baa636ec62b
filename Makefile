# Everything runs in .venv; what is made is remembered in .venv/.*, so a second call starts at once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
# pip's own progress bars, and nothing but faults where nobody looks on
PIP := $(BIN)/pip install $(shell test -t 2 || echo --quiet) -c constraints.txt
PYTEST_PROCESSES ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHON  # which Python .venv is made with: make PYTHON=...

.PHONY: help setup run test test-vllm test-deepspeed drill lint docs seeds bench smollm2 vllm deepspeed ui deploy serve-all clean venv

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.installed .venv/.data .venv/.databases ## Install into .venv, fetch the data, make the databases

run: .venv/.data ## Run the whole pipeline: whatever has changed since the last run
	@$(BIN)/proximal run

test: .venv/.installed-test .venv/.data lint ## Run lint and all tests, as .ci/run does
	@# In the files' order: files of few tests are the long ones, and would come last
	$(BIN)/pytest -n $(PYTEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-vllm: .venv/.installed-test vllm ## Run PPO with rollouts of a real vLLM on this machine's CPU
	$(BIN)/pytest -s tests/components/vllm

test-deepspeed: .venv/.installed-test deepspeed ## Run stages by DeepSpeed's ZeRO on two ranks of this machine's CPU
	TORCH_EXTENSIONS_DIR=$(CURDIR)/.venv-deepspeed/extensions .venv-deepspeed/bin/python -m pytest tests/components/training/test_zero_step.py tests/components/launch/test_zero_stages.py

drill: .venv/.installed-test .venv/.data ## Kill 300 processes of runs, each in a drawn moment, and look what is left (half an hour)
	PROXIMAL_KILLS=300 $(BIN)/pytest -n $(PYTEST_PROCESSES) tests/flows/test_kill_drill.py

lint: .venv/.installed-test ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/mypy components flows
	$(BIN)/lint-imports

docs: .venv/.installed-docs ## Build the documents' site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # with --quiet it would not count warnings

seeds: .venv/.data ## Run three seeds, each in a clone of its own, and print the table of README
	@$(BIN)/proximal seeds

bench: setup ## Measure ours beside TRL on the same work (an hour; makes an environment for TRL)
	$(BIN)/python tests/benchmarks/peer.py --growth

smollm2: .venv/.installed ## Fetch SmolLM2-135M-Instruct, a small chat model, into models/
	@$(BIN)/python infra/fetch_smollm2.py

vllm: .venv/.installed ## Install vLLM for CPUs into .venv-vllm, an environment of its own
	@infra/make_vllm.sh

deepspeed: .venv/.installed ## Install DeepSpeed into .venv-deepspeed, which sees all of .venv
	@infra/make_deepspeed.sh

ui: setup ## Open the MLflow UI on this machine
	@$(BIN)/proximal ui

deploy: ## Register pools, deployments and automations on the Prefect server of PREFECT_API_URL
	@$(BIN)/proximal deploy

serve-all: .venv/.data .venv/.databases ## Start both servers and a worker, with everything registered, until Ctrl-C
	@$(BIN)/proximal serve-all

clean: ## Remove what runs leave behind: workspaces, records, databases; DVC's cache and data/ stay
	rm -rf artifacts .work .prefect mlflow.db* mlartifacts .venv/.databases

venv:
	@infra/make_venv.sh

.venv/.installed: pyproject.toml constraints.txt | venv
	@echo "installing into .venv: about 4 minutes and 2.1 GB (torch is the largest; its build for CUDA takes several GB more)" >&2
	@$(PIP) -e .
	@touch $@

.venv/.installed-test: .venv/.installed
	@echo "installing what the tests need: about a minute and 0.6 GB" >&2
	@$(PIP) -e '.[test]'
	@touch $@

.venv/.installed-docs: .venv/.installed
	@$(PIP) -e '.[docs]'
	@touch $@

.venv/.data: data.dvc | .venv/.installed
	$(BIN)/proximal data fetch
	$(BIN)/python -m flows.figures
	@touch $@

.venv/.databases: .venv/.installed
	$(BIN)/proximal prepare
	@touch $@
