# Every target makes its environment in .venv by itself; nothing but Python 3.11, 3.12 or 3.13 (or uv) has to be there.
# Another interpreter: make test PYTHON=/opt/python3.12/bin/python3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test quick check docs bench soak fuzz clean

# bytecode is kept, whatever the environment says: each process of the tests would compile the package anew
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
RUN := .venv/.installed
DEV := .venv/.installed-dev
DOCS := .venv/.installed-docs
QUICK := losses metrics models records settings streams tables tasks training/test_loop.py strategies/test_plop.py
DEMO := $(BIN)/densecl run --output demo --benchmark shapes15-5

# the newest that starts: a shim of a version manager may stand for an interpreter that is not there
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3)
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

help: ## show the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

demo: $(RUN) ## finetune and mib on the embedded benchmark, then the table (a few minutes on two cores)
	$(DEMO) --strategy finetune
	$(DEMO) --strategy mib
	$(BIN)/densecl table demo

test: $(DEV) ## the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(ARGS)

quick: $(DEV) ## the tests of the fast rooms, to run while working
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(addprefix tests/,$(QUICK)) $(ARGS)

check: $(DEV) ## all there is to check: format, lint, the arrows between the rooms, types, dead code, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright
	$(BIN)/vulture
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(ARGS)

bench: $(RUN) ## speed of losses, loop and class index against plain PyTorch (ARGS="losses --repeats 9")
	PYTHONPATH=tools $(BIN)/python -m bench $(ARGS)

docs: $(DOCS) ## the pages of docs/ as HTML in build/docs; a warning is an error
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

soak: $(DEV) ## kill real runs at N random moments (default 25) and let them go on to the same bits
	OMP_NUM_THREADS=1 $(BIN)/python tests/helpers/kill_runs.py $(or $(N),25)

fuzz: $(DEV) ## damage files of every kind for M minutes (default 10) and show what ends in a traceback or in unclear words
	OMP_NUM_THREADS=1 $(BIN)/python tests/helpers/fuzz_files.py $(or $(M),10)

clean: ## remove caches, builds and the demo's results; .venv, data and results/ stay
	rm -rf build dist demo .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# One call resolves everything, so that torch and torchvision match. pip is brought up to date first: old ones drop
# the extras of Avalanche's solvers.
define install
	@if command -v uv >/dev/null; then \
		echo "uv pip install -e '$(1)' (torch is large: minutes)" && uv pip install --python $(BIN)/python -e '$(1)'; \
	else \
		echo "pip install -e '$(1)' (torch is large: minutes)" && \
		$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade pip && \
		$(BIN)/python -m pip install -qq --disable-pip-version-check -e '$(1)'; \
	fi
endef

$(RUN): pyproject.toml | $(BIN)/python
	$(call install,.)
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(call install,.[dev])
	@touch $(RUN) $@

$(DOCS): pyproject.toml | $(BIN)/python
	$(call install,.[docs])
	@touch $(RUN) $@

$(BIN)/python:
	@if command -v uv >/dev/null; then uv venv --python $(if $(PYTHON),$(PYTHON),'>=3.11,<3.14') .venv; exit $$?; fi; \
	for python in $(CANDIDATES); do \
		if $$python -c '$(SUPPORTED)' >/dev/null 2>&1; then \
			echo "$$python -m venv .venv" && $$python -m venv .venv; exit $$?; \
		fi; \
	done; \
	echo "make: needs Python 3.11, 3.12 or 3.13 with venv; tried: $(CANDIDATES)" >&2; exit 1
