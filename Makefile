# make demo: the main job, from nothing.  make test: the tests that every change must pass.
# make test-slow: the slow ones, which CI runs too.  make test-long: those of minutes each, by hand.
# make calibration: what intervals, dates and claims are worth, into docs/calibration.md, by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# make test-lowest, make test-newest: the tests with the oldest versions that pyproject.toml allows,
# and on the newest Python that jax supports, each in an environment of its own; by hand.
NEWEST ?= 3.14

.PHONY: demo test test-slow test-long test-all test-lowest test-newest calibration check install

demo: $(VENV)/.core
	$(BIN)/mi-jax run grokking

test: install
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: install
	$(BIN)/python -m pytest -m slow -n auto --dist worksteal

test-long: install
	$(BIN)/python -m pytest -m long -n auto --dist worksteal

test-all: test test-slow test-long

# Old packages warn of what newer ones will take away.
test-lowest: $(VENV)/.core
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-lowest
	$(BIN)/uv pip install --quiet --python $(VENV)-lowest/bin/python --resolution lowest-direct \
		--editable '.[dev]'
	$(VENV)-lowest/bin/python -m pytest -n auto --dist worksteal -W ignore::DeprecationWarning \
		-W ignore::PendingDeprecationWarning -W 'ignore:It looks like .register_random'

test-newest: $(VENV)/.core
	$(BIN)/uv venv --quiet --clear --python $(NEWEST) $(VENV)-newest
	$(BIN)/uv pip install --quiet --python $(VENV)-newest/bin/python --upgrade --editable '.[dev]'
	$(VENV)-newest/bin/python -m pytest -n auto --dist worksteal

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
