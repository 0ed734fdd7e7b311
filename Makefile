# PYTHON chooses the interpreter (3.10 or newer). pip gets PIP_FLAGS, for example an index with CPU builds of torch.
PYTHON ?= python3
PIP_FLAGS ?=
OUT ?= output/demo
VENV := .venv
INSTALLED := $(VENV)/.installed
DEMO := $(VENV)/.demo

# Byte code is kept, whatever the shell says: tests start hundreds of processes, each of which would compile torch again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PYTHON=$(PYTHON)  PIP_FLAGS=$(PIP_FLAGS)  OUT=$(OUT)"

demo: $(DEMO)  ## the bundled portrait speaks in two styles, into OUT
	$(VENV)/bin/svp demo --out "$(OUT)"

# Two processes take tests from each other; two cores and 8 GB are enough for them.
test: $(INSTALLED)  ## the tests, without the slow ones
	$(VENV)/bin/python -m pytest -q -m "not slow" -n 2 --dist worksteal

test-slow: $(INSTALLED)  ## the slow tests
	$(VENV)/bin/python -m pytest -q -m slow -n 2 --dist worksteal

lint: $(INSTALLED)  ## check style, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(INSTALLED)  ## format the code and fix what ruff can fix
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# --no-compile leaves byte code to the first import, which halves the time of the installation. The stamps make the second run
# start at once; a change of the dependencies installs again. The demo needs less than the tests.
INSTALL := $(VENV)/bin/python -m pip install --quiet --no-compile $(PIP_FLAGS) -c constraints.txt

$(VENV):
	$(PYTHON) -m venv $(VENV)

$(DEMO): pyproject.toml constraints.txt | $(VENV)
	$(INSTALL) -e ".[standalone]"
	touch $@

$(INSTALLED): pyproject.toml constraints.txt | $(VENV)
	$(INSTALL) -e ".[dev]"
	touch $(DEMO) $@

clean:  ## remove .venv and build files
	rm -rf $(VENV) build *.egg-info
