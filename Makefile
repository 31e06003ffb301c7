# Every target sets up .venv by itself when it is missing or out of date, and not again when it is not.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DIR ?= runs/demo

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Threads that wait give their core away: several processes share the cores.
export OMP_WAIT_POLICY ?= PASSIVE
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-real test test-slow lint types bench gpu coverage notebooks docs clean

help:  ## Show the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 11

# Asked again every time, since a model that is missing must not hide behind a finished .venv; one look where it is there.
setup: $(STAMP)  ## Make .venv with every version pinned, and put the real model into the cache.
	@PIP_RETRIES=1 $(BIN)/persona-probe real fetch --quiet || \
	  echo "The real model is missing, and tests that use it are skipped. Fetch it with: $(BIN)/persona-probe real fetch" >&2

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}: run make with PYTHON=/path/to/python3.11")'
	@echo "Setting up $(VENV) (once; a few minutes on a slow connection) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: setup  ## Run the main job on Persona World and write a report you can open.
	@$(BIN)/persona-probe demo --out $(DEMO_DIR)

demo-real: setup  ## The same on a real chat model, with hand-written texts; about an hour on two cores.
	@$(BIN)/persona-probe demo --real --out $(DEMO_DIR)-real

test: lint types setup  ## Lint, type-check and run the tests but for the slow ones; within 8 minutes on two idle cores.
	@$(PYTEST) -m "not slow"

test-slow: setup  ## Run the slow tests: every architecture, kills, Persona World's claims, the wheel, browsers.
	@$(PYTEST) -m slow

lint: setup
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .

types: setup
	@$(BIN)/mypy

bench: setup  ## Measure performance and write benchmarks/results/.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@$(BIN)/python -m benchmarks

# No set-up: a machine that lends a GPU has its own Python with torch, and often no network.
gpu: DEVICE ?= cuda
gpu: MINUTES ?= 9.5
gpu: OUT ?= $(if $(filter cpu,$(DEVICE)),runs/gpu-dry-run.json,benchmarks/results/gpu.json)
gpu:  ## Tests, benchmarks and a study on a GPU in ten minutes; DEVICE=cpu tries the script in small sizes.
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu --device $(DEVICE) --minutes $(MINUTES) --out $(OUT)

coverage: setup  ## Simulate how often intervals contain the truth; write docs/reference/coverage.md (hours; resumes).
	@$(BIN)/python -m benchmarks.coverage

notebooks: setup  ## Execute the notebooks and keep them with their outputs.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[notebooks,export]'
	@$(BIN)/python notebooks/execute.py

docs: setup  ## Build the documentation.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:  ## Remove what the other targets made, but for .venv.
	rm -rf runs/demo runs/demo-real runs/gpu-dry-run.json docs/_build docs/notebooks docs/_static/plotly.min.js .pytest_cache .mypy_cache .ruff_cache
