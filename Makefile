# `make app` and `make test` do all that is needed on a fresh machine; only Python 3.11 or newer and make must be there.
#
#   make app  [ARGS="--port 7861"]        the page
#   make test [ARGS="tests/unit -k grid"]
#   make test-all                         the slow ones too
#   make lint                             ruff, mypy on the pure rooms, import contracts
#   make bench [ARGS=quality]
#   make clean                            removes the virtual environment and caches

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
RUN := $(BIN)/python
PIP := $(RUN) -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: app test test-all lint bench clean
.DELETE_ON_ERROR:

app: $(VENV)/installed
	$(RUN) app.py $(ARGS)

# Two tests at a time, each with one thread: many tests wait, and torch's threads would only fight for cores.
# A browser test that fails is tried once more. One that the summary then names with RERUN is to be mended all the same:
# it waits for the wrong thing, or the page does.
# The slow ones, about forty that take five seconds to a minute each, are in test-all.
test: $(VENV)/installed-dev
	GRADIO_ANALYTICS_ENABLED=False HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal -m "not slow and not browser" $(ARGS)
	GRADIO_ANALYTICS_ENABLED=False HF_HUB_OFFLINE=1 $(RUN) -m pytest -m "browser and not slow" --reruns 1 -rR $(ARGS)

test-all: $(VENV)/installed-dev
	GRADIO_ANALYTICS_ENABLED=False HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed
	$(RUN) -m pusa_app bench $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: requirements.txt constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pusa Studio needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements.txt requirements-dev.txt constraints.txt
	$(MAKE) $(VENV)/installed
	$(PIP) -r requirements-dev.txt
	touch $@
