# Every target works on a fresh machine with Python 3.11 or newer, make and nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN = .venv/bin

.PHONY: help install demo test check docs
help: ## What there is
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/:/'

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

install: .venv/installed ## .venv with bnn and what the tests need

demo: install ## Train on 3,200 real digits without internet, and write a report to look at: two minutes
	$(BIN)/bnn demo

# A process for each core, and a thread for each process: most tests are too small for more.
test: install check ## Lint, types and tests; pytest -m "not slow" runs the quick ones alone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/docs: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

docs: .venv/docs ## The site in build/docs; its examples are run, and a warning or a broken link fails
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env docs build/docs
	@echo "Open build/docs/index.html"
