# Nothing but Python >= 3.10 with venv is needed; every target makes the virtual environment it uses.
.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format docs bench clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STAMP_ALL := $(VENV)/.installed-all
STAMP_DOCS := $(VENV)/.installed-docs
# The first that runs and is new enough; `make PYTHON=/path/to/python` overrides.
PYTHON ?= $(shell for p in python3.11 python3 python3.13 python3.12 python3.10; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)
# Those that need nothing but what ships; corpus_likeness and corpus_stability take a corpus.
BENCHMARKS := real_grasps bench_refine contact_network keypoint_lifting batch_throughput kill_resume
# Two threads are what the figures in the documentation were measured with.
export OMP_NUM_THREADS ?= 2

help:
	@echo 'make demo     refine noisy grasps on six objects: table, pictures, a film, web pages in demo_out/'
	@echo 'make test     tests (test-all: the slow ones too, and those of Open3D and transformers)'
	@echo 'make lint     ruff, import contracts, and types where pyright or basedpyright is installed'
	@echo 'make format   apply the formatting'
	@echo 'make docs     the documentation as a site, into build/site'
	@echo 'make bench    every benchmark in its short form'
	@echo 'make clean    remove the virtual environment and what the demo wrote'

$(STAMP): pyproject.toml constraints.txt setup.py
	@test -n '$(PYTHON)' || { echo 'No Python >= 3.10 with venv found: install python3 and python3-venv, or make PYTHON=...'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[render,dev]'
	@touch $@

# What only `make test-all` needs; Open3D asks for the system's libusb-1.0-0 besides.
$(STAMP_ALL): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[render,dev-all]'
	@touch $@

$(STAMP_DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

.venv: $(STAMP)

demo: $(STAMP)
	$(BIN)/regrasp demo --out demo_out

test: $(STAMP)
	$(BIN)/python -m pytest -m 'not slow'

test-all: $(STAMP_ALL)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@for checker in pyright basedpyright; do test ! -x $(BIN)/$$checker || exec $(BIN)/$$checker; done; \
	echo 'neither pyright nor basedpyright is in $(VENV): types not checked'

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site fetches nothing: what mkdocs-material would load from elsewhere is switched off.
docs: $(STAMP_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'open build/site/index.html; to search it, too: python3 -m http.server -d build/site'

bench: $(STAMP)
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py --quick; done

clean:
	rm -rf $(VENV) demo_out build dist *.egg-info
