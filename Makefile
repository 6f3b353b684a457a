# Everything a reader or contributor runs. `make` alone lists it.
# Kept to what GNU make 3.81, the one macOS ships, understands.

PYTHON ?= python3
BIN := .venv/bin

# The kernel that runs the chapters is always the one of .venv.
export JUPYTER_PREFER_ENV_PATH = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
MAKEFLAGS += --no-print-directory

# The results files of the book are a part of the package.
PACKAGE := $(shell find explainer book/results -type f \
	! -path '*/__pycache__/*' ! -name '.*')
CHAPTERS := $(wildcard book/*.ipynb)
SOURCES := $(PACKAGE) pyproject.toml setup.py

# Two at a time; a make that another one started takes turns with it.
TWO := $(if $(filter 0,$(MAKELEVEL)),-j 2)
# Threads that fight for a core lose more than they gain.
CORES_EACH := $(shell $(PYTHON) -c \
	'import os; print(max(1, (os.cpu_count() or 1) // 2))')

.DEFAULT_GOAL := help
.PHONY: help book serve links test lint chapters units pages benchmark \
	set-repository weights clean

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-16s %s\n", $$1, $$2}' \
		$(firstword $(MAKEFILE_LIST))

# --- the two commands --------------------------------------------------

book: chapters _build/.try_it  ## Run the chapters and build the HTML
	$(BIN)/jupyter-book build . --all -W -n --keep-going

# The chapters come first: they keep both cores busy, and the pages need them.
test: .venv/.test  ## Run the linters, every chapter, the book and all tests
	$(MAKE) $(TWO) lint chapters
	OMP_NUM_THREADS=$(CORES_EACH) $(MAKE) $(TWO) pages units
	@echo "Linters, types, chapters, pages and units have passed."
	@echo "The book that was tested: _build/html/index.html"

# --- what they are made of ---------------------------------------------

lint: .venv/.test  ## Run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

chapters: _build/.installed  ## Run every chapter as a test
	@echo "Running what has changed of the $(words $(CHAPTERS)) chapters:"
	@OMP_NUM_THREADS=$(CORES_EACH) $(MAKE) -k $(TWO) \
		$(CHAPTERS:book/%.ipynb=_build/executed/%)
	@echo "Every chapter of _toc.yml has run without error."

units: .venv/.test  ## Run the unit tests
	$(BIN)/python -m pytest tests --ignore tests/book -n 2 \
		--benchmark-disable --durations 10

pages: book  ## Build the book and open its pages in a browser
	$(BIN)/python -m pytest tests/book --durations 10

# Nothing below is repeated until the chapter, the package or what it needs
# changes.

# With the package installed and nothing of the repository around it.
_build/executed/%: book/%.ipynb _build/.installed
	@mkdir -p $(@D)
	@PYTHONPATH="$$PWD/_build/installed" $(BIN)/python \
		tools/run_chapter.py $< > $@.log 2>&1 || \
		{ cat $@.log; echo "$< failed as a test."; exit 1; }; \
	echo "$< as a test: $$(tail -n 1 $@.log)"
	@touch $@

# Chapters are cached by their own text only, so whatever else can change
# their figures empties the cache.
_build/.installed: $(SOURCES) tools/run_chapter.py .venv/.book
	rm -rf build _build/installed _build/.jupyter_cache
	$(BIN)/pip install --quiet --no-deps --no-build-isolation \
		--target _build/installed .
	@rm -rf build && touch $@

# [test] contains [book].
.venv/.test: pyproject.toml setup.py
	$(call install,test)
	@touch .venv/.book $@

.venv/.book: pyproject.toml setup.py
	$(call install,book)
	@touch $@

# The networks of the page Try it. Without a connection to npm the book is
# built all the same, and that page says what it lacks.
_build/.try_it: $(SOURCES) tools/build_try_it.py .venv/.book
	-$(BIN)/python tools/build_try_it.py && mkdir -p _build && touch $@

define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	echo "Python 3.10 or newer is needed and '$(PYTHON)' is not;" \
		"name one that is: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	exit 1; }
@echo "Setting up .venv for '$(1)'. The first time takes a few minutes."
test -x $(BIN)/pip || $(PYTHON) -m venv .venv
@# Python compiles what is imported; all of it would take another minute.
$(BIN)/pip install --quiet --no-compile --editable '.[$(1)]'
@# The first import from a cold disk can take longer than a kernel or a
@# cell is waited for; take it here.
@$(BIN)/python -c 'import ipykernel.kernelapp, matplotlib.pyplot, torchvision'
endef

# --- now and then ------------------------------------------------------

# Many hours of one core; interrupted, it resumes.
weights: .venv/.test  ## Make the scenes' weights and results again, and ship
	$(BIN)/explainer reproduce scenes
	$(BIN)/explainer reproduce scenes --only ship

serve: book  ## Build the book and show it at http://localhost:8000
	$(BIN)/python -m http.server 8000 --bind 127.0.0.1 \
		--directory _build/html

links: chapters  ## Ask every link of the book
	$(BIN)/jupyter-book build . --builder linkcheck

benchmark: .venv/.test  ## Time the package beside the bare networks
	$(BIN)/python tools/record_benchmarks.py

set-repository:  ## Point every link at URL=https://github.com/you/repo
	@$(PYTHON) tools/set_repository.py '$(URL)'

clean:  ## Remove what was built; .venv stays
	rm -rf _build build book/_static/try_it/built .benchmarks .hypothesis .mypy_cache .pytest_cache \
		.ruff_cache
