# On a machine with nothing but Python 3.11 or newer:
#   make demo    set up, then classify the photos in examples/photos
#   make test    set up, then format, lint, types and tests
#   make bench   set up, then race against other runtimes
#   make clean   remove what these made
# PYTHON=python3.13 make demo takes another interpreter; JOBS=1 make test runs one test at a time.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Where imports may not write bytecode (PYTHONDONTWRITEBYTECODE), every start would compile anew what
# pip compiles for any other kind of install.
COMPILE = $(BIN)/python -m compileall -q src

.PHONY: demo test lint format types tests bench clean

demo: $(VENV)/.stamp-base
	$(BIN)/striate classify examples/photos --top 5

test: lint types tests

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check

format: $(VENV)/.stamp-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

types: $(VENV)/.stamp-dev
	$(BIN)/mypy --strict src

tests: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

bench: $(VENV)/.stamp-race
	$(BIN)/striate race $(ARGS)

# A stamp says which extras are in; a later one holds all that the base one does.
$(VENV)/.stamp-base: pyproject.toml | $(VENV)/.stamp-venv
	$(PIP) --editable .
	@$(COMPILE)
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml | $(VENV)/.stamp-venv
	$(PIP) --editable '.[dev]'
	@$(COMPILE)
	@touch $@ $(VENV)/.stamp-base

$(VENV)/.stamp-race: pyproject.toml | $(VENV)/.stamp-venv
	$(PIP) --editable '.[race]'
# pnnx turns ONNX graphs into ncnn's with a program of its own; the torch it asks for is not needed.
	$(PIP) --no-deps pnnx
	@touch $@ $(VENV)/.stamp-base

# The new environment gets its stamp last, so that one left half made is made again.
$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Striate needs Python 3.11 or newer; $(PYTHON) is %d.%d. Say PYTHON=python3.12 make ..." % v[:2])'
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

clean:
	find src -name __pycache__ -exec rm -rf {} +
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
