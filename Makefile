# make demo: the main job, from nothing.  make test: the tests that every change must pass.
# make test-slow: the slow ones, which CI runs too.  make test-long: long simulations, by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-long test-all calibration check install

demo: install
	$(BIN)/mi-jax run grokking

test: install
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: install
	$(BIN)/python -m pytest -m slow -n auto --dist worksteal

test-long: install
	$(BIN)/python -m pytest -m long -n auto --dist worksteal

test-all: test test-slow test-long

# What intervals, dates and claims are worth, into docs/calibration.md: the tests of tests/calibration.
calibration: install
	$(BIN)/python docs/calibration.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
