# make demo: the main job, from nothing.  make test: the tests that every change must pass.
# make test-slow: the slow ones, which CI runs too.  make test-long: those of minutes each, by hand.
# make calibration: what intervals, dates and claims are worth, into docs/calibration.md, by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-long test-all calibration check install

demo: $(VENV)/.core
	$(BIN)/mi-jax run grokking

test: install
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: install
	$(BIN)/python -m pytest -m slow -n auto --dist worksteal

test-long: install
	$(BIN)/python -m pytest -m long -n auto --dist worksteal

test-all: test test-slow test-long

calibration: install
	$(BIN)/python docs/calibration.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

install: $(VENV)/.installed

# What the package needs to run, and for the tests what they need besides. uv does it in seconds;
# pip, which is slower, where uv can't be had or can't reach what pip reaches.
$(VENV)/.core: pyproject.toml
	$(call install,mi_jax and what it needs,.)

$(VENV)/.installed: pyproject.toml
	$(call install,mi_jax and what its tests need,.[dev])
	touch $(VENV)/.core

define install
@echo "Installing $(1) into $(VENV)"
@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
@$(BIN)/python -m pip install --quiet uv \
	&& $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '$(2)' \
	|| { echo "uv could not do it; trying pip, which takes a minute or two" \
	&& $(BIN)/python -m pip install --quiet --editable '$(2)'; }
@touch $@
endef
