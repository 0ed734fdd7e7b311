# make demo   a portrait speaks in two styles: output/demo
# make test   the tests
# PYTHON picks the interpreter (3.10 or newer); PIP_FLAGS is handed to pip, for example to name an index with CPU builds of torch.
PYTHON ?= python3
PIP_FLAGS ?=
OUT ?= output/demo
VENV := .venv
INSTALLED := $(VENV)/.installed
DEMO := $(VENV)/.demo

.PHONY: demo test test-slow lint clean

demo: $(DEMO)
	$(VENV)/bin/svp demo --out "$(OUT)"

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest -q -m "not slow"

test-slow: $(INSTALLED)
	$(VENV)/bin/python -m pytest -q -m slow

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

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

clean:
	rm -rf $(VENV) build *.egg-info
