# The verbs of this project; `make` alone lists them. CI runs the same ones.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed
TRITON := nvidia-pytriton==0.7.0
QUIX := quixstreams==3.28.1
# pip's own lines as progress: each package, the size of large ones; its errors come unfiltered
PROGRESS := sed -unE 's/^Collecting ([^ ]+).*/  \1/p; s/^ *(Downloading .* MB\)).*/    \1/p; s/^Installing collected.*/  installing/p'

.PHONY: help demo up test check bench install format constraints

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(INSTALLED)  ## real events through the whole engine, on real local parts; ends with a summary
	@$(BIN)/freshrank demo

up: $(INSTALLED)  ## the local parts and the workers; Ctrl-C ends them
	@$(BIN)/freshrank up

test: $(INSTALLED)  ## all tests; with KAFKA_HOME set those on Apache Kafka, too
	$(BIN)/pytest

check: $(INSTALLED)  ## format, lint, types, imports, and the tests that need no parts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@# models all have the same file name, so each is checked by itself
	for model in model_repository/*/1/model.py; do $(BIN)/mypy "$$model"; done
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not parts"

bench: $(INSTALLED) .venv/opt/quixstreams  ## the engine beside its floor and its peers, an hour; with KAFKA_HOME on Apache Kafka
	@$(BIN)/freshrank bench $(if $(KAFKA_HOME),--kafka)

# it wants other versions than the environment has: one peer's process sees it, nothing else
.venv/opt/quixstreams:
	@echo "Quix Streams, aside in $@"
	@$(BIN)/pip install --target $@ $(QUIX) | $(PROGRESS)

format: $(INSTALLED)  ## rewrite the files as `check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(INSTALLED)  ## the environment in .venv; does nothing when it is up to date

$(INSTALLED): pyproject.toml constraints.txt
	@echo "[1/4] environment .venv ($$($(PYTHON) --version))"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "freshrank needs Python 3.11: make PYTHON=/path/to/python3.11 ...")'
	@$(PYTHON) -m venv .venv
	@echo "[2/4] torch, the largest package"
	@$(BIN)/pip install -c constraints.txt torch==2.13.0 | $(PROGRESS)
	@echo "[3/4] freshrank and what it needs"
	@$(BIN)/pip install -c constraints.txt -e '.[local,train,dev,bench]' | $(PROGRESS)
	@echo "[4/4] Triton Inference Server, aside in .venv/opt"
	@$(BIN)/pip install --no-deps --upgrade --target .venv/opt/pytriton $(TRITON) | $(PROGRESS)
	@touch $@
	@echo "installed"

constraints: $(INSTALLED)  ## write constraints.txt from the environment as it is
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude freshrank | sed -nE 's/^([A-Za-z0-9._-]+==[^+ ]+).*/\1/p'; } > constraints.new
	@mv constraints.new constraints.txt
	@touch $(INSTALLED)
