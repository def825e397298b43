# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup quickstart test lint bench results

setup: $(STAMP)

# torch comes first and pinned, so that a CPU build that is already there is kept.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $(STAMP)

quickstart: setup
	$(BIN)/gradus run recipes/quickstart.yaml
	$(BIN)/gradus report runs/quickstart

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/pretrain.py
	$(BIN)/python benchmarks/finetune.py

results: setup
	$(BIN)/python -m gradus.report results/*.json > docs/results.md
