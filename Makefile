# make demo   a portrait speaks in two styles: output/demo
# make test   the tests
# PYTHON picks the interpreter (3.10 or newer); PIP_FLAGS is handed to pip, for example to name an index with CPU builds of torch.
PYTHON ?= python3
PIP_FLAGS ?=
OUT ?= output/demo
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow lint clean

demo: $(INSTALLED)
	$(VENV)/bin/svp demo --out "$(OUT)"

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest -q -m "not slow"

test-slow: $(INSTALLED)
	$(VENV)/bin/python -m pytest -q -m slow

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# --no-compile leaves byte code to the first import, which halves the time of the installation. The stamp makes the second
# run start at once; a change of the dependencies installs again.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-compile $(PIP_FLAGS) -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
