# The two commands: `make demo` and `make test`. Each sets itself up in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Most of a test is tracing, on one thread; the tests of a file stay together for their fixtures.
TWO := --numprocesses 2 --dist loadfile

.PHONY: help setup demo test test-all docs figures notebooks parity lint clean

help:
	@echo "make demo      draw images, train, score and detect; results in runs/demo/report.html"
	@echo "make test      run the tests and the linters"
	@echo "make test-all  the slow tests too"
	@echo "make docs      build the documentation in docs/_build/html, warnings are errors"
	@echo "make figures   draw the figures of docs/review again, a few minutes"
	@echo "make notebooks  run the scripts of examples/notebooks and write examples/*.ipynb, some minutes"
	@echo "make parity    compare with torchvision, which it installs beside; hours of two cores"
	@echo "make setup     only install into $(VENV)"

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py
	@$(PYTHON) -c "import sys; v = sys.version_info; \
	  sys.exit(0 if v >= (3, 11) else f'Python 3.11 or newer is needed, {v[0]}.{v[1]} found: try make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

demo: $(STAMP)
	$(BIN)/python tools/demo.py

test: $(STAMP) lint
	$(BIN)/python -m pytest $(TWO)

test-all: $(STAMP) lint
	$(BIN)/python -m pytest $(TWO) -m ""

docs: $(STAMP)
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo "docs/_build/html/index.html"

figures: $(STAMP)
	$(BIN)/python tools/draw_figures.py $(FIGURES)

notebooks: $(STAMP)
	$(BIN)/python tools/build_notebooks.py $(NOTEBOOKS)

parity: $(STAMP)
	$(BIN)/python tools/parity/run.py $(PARITY)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) docs/_build build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
