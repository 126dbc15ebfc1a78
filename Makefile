# make demo, make test: each makes .venv first, from pyproject.toml and constraints.txt.
# A Python of your choice: make test PYTHON=/path/to/python

VENV := .venv
READY := $(VENV)/ready
BENCHED := $(VENV)/benched
DOCUMENTED := $(VENV)/documented
BENCH ?=
MEASURED := round real generate search growth
SMOKE := tests/test_losses.py tests/test_pairs.py tests/test_config.py tests/test_loop.py \
  tests/policies/test_exact.py tests/measure/test_search.py
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	  $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	    >/dev/null 2>&1 && echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo test smoke slow everywhere lint format docs bench lock clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: $(READY)  ## self-reward a small model and name the report page
	$(VENV)/bin/srlm demo

test: $(READY)  ## run the fast tests (one process a core, one thread each)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal -q -m "not slow"

smoke: $(READY)  ## run the tests of what everything rests on, some 15 seconds
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -m smoke $(SMOKE)

everywhere: $(READY)  ## run the numeric tests as slower processors would, and in shuffled order
	PYTHON=$(VENV)/bin/python tests/everywhere.sh

slow: $(READY)  ## run the slow tests: kills at every write, wide simulations
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal -q -m slow

lint: $(READY)  ## check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(READY)  ## put the code in the house's format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(DOCUMENTED)  ## build the documentation as a site in site/
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

# One after the other, on one thread: nothing else should run meanwhile. What fails is named at the
# end and leaves the others' results and the page; for the times see benchmarks/side_by_side.py.
bench: $(BENCHED)  ## measure speed beside TRL and transformers, write docs/speed.md
	@export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1; failed=; \
	for name in $(MEASURED) page; do \
	  echo "== $$name"; began=$$(date +%s); \
	  $(VENV)/bin/python -m benchmarks.$$name $(BENCH) || failed="$$failed $$name"; \
	  echo "== $$name: $$(($$(date +%s) - began)) s"; done; \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

lock: $(READY)  ## write constraints.txt from the environment
	@{ sed -n 1p constraints.txt; $(VENV)/bin/python -m pip freeze --local --all --exclude-editable \
	  | grep -v '^pip==' | sed -E 's/\+cpu$$//' | sort -f; } > constraints.new
	@mv constraints.new constraints.txt

clean:  ## remove the environment and what was built (not runs/)
	rm -rf $(VENV) build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Written last, so an installation that was cut off is taken up again.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { \
	  echo "srlm needs Python 3.11 or newer with its venv module, and found none as" >&2; \
	  echo "python3.11, python3.12, python3.13 or python3 on PATH." >&2; \
	  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it:" >&2; \
	  echo "  make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(BENCHED): $(READY)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt \
	  -e '.[dev,bench]'
	@touch $@

$(DOCUMENTED): $(READY)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt \
	  -e '.[dev,docs]'
	@touch $@
