# Two commands are all you need: `make lab` opens the course, `make test` checks everything.
# Both set up `.venv` first and need Python 3.11 or later, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
NBVAL := --nbval --nbval-cell-timeout=60 -n 2 --dist loadfile -p no:cacheprovider

# What tests solve is not the learner's progress.
test nbval other-pythons: export K8SNETLAB_HOME := $(CURDIR)/artefacts/home

.DEFAULT_GOAL := help
.PHONY: help lab test lint unit nbval rebuild browser other-pythons notebooks evidence constraints bench fuzz clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:
	@echo 'make lab        open the course in JupyterLab (sets up .venv the first time)'
	@echo 'make test       lint, types, unit tests, notebooks, browser: all that CI checks'
	@echo 'make lint       style and strict types only'
	@echo 'make unit       unit tests only'
	@echo 'make notebooks  build the two editions of every notebook whose source or package changed'
	@echo 'make evidence   ask the real kernel again where the records are no longer true'
	@echo 'make bench      print the benchmark table'
	@echo 'make fuzz       random clusters, walk against kernel: make fuzz ROUNDS=5000 SEED=1000'
	@echo 'make clean      remove everything that can be made again'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"k8snetlab needs Python 3.11 or later and $(PYTHON) is {v[0]}.{v[1]}: use make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/lab.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing the lab into $(VENV) (once; about a minute)'
	$(PIP) install -qq --constraint constraints.txt --editable '.[lab]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing the lab and its tests into $(VENV) (once; about a minute)'
	$(PIP) install -qq --constraint constraints.txt --editable '.[lab,test]'
	@touch $(VENV)/lab.stamp $@

lab: $(VENV)/lab.stamp
	$(BIN)/k8snetlab lab

# The unit tests come last of the parts: their closing line is then the last thing to read.
test: lint rebuild nbval other-pythons browser unit

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

# Three workers on two cores: tests of the real kernel mostly wait. Who is idle takes work from who is not.
unit: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n 3 --dist worksteal -m 'not browser' tests

# Strict: every output of every cell is computed again and compared.
nbval: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(NBVAL) notebooks/*.ipynb notebooks/solutions/*.ipynb

rebuild: $(VENV)/test.stamp
	$(BIN)/python tools/build_notebooks.py --check
	$(BIN)/python tools/build_readme.py --check

browser: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n 2 --dist worksteal -m browser tests/browser

other-pythons: $(VENV)/test.stamp
	$(BIN)/python tools/other_pythons.py

notebooks: $(VENV)/test.stamp
	$(BIN)/python tools/build_notebooks.py
	$(BIN)/python tools/build_readme.py

# Before the notebooks: they show what is recorded here.
evidence: $(VENV)/test.stamp
	$(BIN)/python tools/record_evidence.py

bench: $(VENV)/test.stamp
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/policies.py
	$(BIN)/python benchmarks/names.py
	$(BIN)/python benchmarks/live.py

# As many rounds as `make test` plays, unless told otherwise.
ROUNDS ?= 360
SEED ?= 1

fuzz: $(VENV)/test.stamp
	$(BIN)/python -m tests.live.fuzz $(ROUNDS) $(SEED)

# uv answers for all platforms at once; annotations and indexes would tie the file to one machine.
constraints:
	{ echo '# Every version the lab and its tests are known to work with, for all platforms and Python 3.11 or later.'; \
	  echo '# Made by `make constraints`.'; \
	  uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --all-extras \
	    --no-annotate --no-header --no-emit-index-url --no-emit-find-links pyproject.toml; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) .venv-* artefacts build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
