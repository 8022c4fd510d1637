# Targets for people, CI and the pre-commit hooks. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The pins are complete, so pip resolves nothing. That saves time, and older pips fail if a package requires
# `name[extra]` and the pin is not the newest.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps
STAMP := $(VENV)/.presswork-installed
RUNS := $(VENV)/.presswork-runs
UV := $(VENV)/.pins
# Without bytecode a command compiles up to 5,000 modules, and does so each time if PYTHONDONTWRITEBYTECODE is set, as in
# many images. So they are compiled once, by several processes and in spite of that variable: 11 s of CPU, of which the
# first run would need the half itself. Pip compiles nothing: it takes one process, and much is never imported.
COMPILE_ALL := $(BIN)/python -m compileall -qq -j 4
OURS := presswork db flows sandbox
NEVER_IMPORTED := /site-packages/(.+/)?(tests?|testing|pip|setuptools|apprise|dateparser|docker|hatchling|oauthlib)/|/pygments/lexers/[a-z]
# Divides constraints.txt: the packages above this line are enough for a run, and less than half of the megabytes.
FOR_DEVELOPMENT := \# What follows is for development alone.
# Tests wait for servers more than they compute. The tests of a file share a process, and the servers that it starts.
# tests/conftest.py orders the files: the longest first.
AT_ONCE := -n 3 --dist loadfile --no-loadscope-reorder

# Presswork sends no telemetry.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test check soak bench pins clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Install Presswork and its pinned packages into .venv
	@echo "Presswork is installed: $(BIN)/presswork"

# Made again only when a pin or pyproject.toml changes.
$(RUNS): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || { \
	    echo "Presswork needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)." \
	        "Name another one: make PYTHON=python3.11" >&2; exit 1; }
	@if [ -d $(VENV) ]; then echo "Updating $(VENV) to the pinned packages ..."; \
	    else echo "Installing Presswork's pinned packages into $(VENV), only this time ..."; fi
	@$(PYTHON) -m venv $(VENV)
	@sed '/^$(FOR_DEVELOPMENT)/,$$d' constraints.txt > $(VENV)/running.txt
	@$(PIP) --no-compile --require-hashes -r $(VENV)/running.txt
	@$(PIP) --no-build-isolation -e .
	@$(COMPILE_ALL) -x '$(NEVER_IMPORTED)' $(VENV)/lib $(wildcard $(OURS)) || true # a flow of yours may have a mistake
	@touch $@

$(STAMP): $(RUNS)
	@echo "Installing the packages for development ..."
	@$(PIP) --no-compile --require-hashes -r constraints.txt
	@touch $@

demo: $(RUNS) ## Run the flows on sample records, with nothing to set up
	@$(BIN)/presswork demo

test: $(STAMP) ## Run the tests
	@$(BIN)/pytest $(AT_ONCE)

check: $(STAMP) ## Run what CI runs: format, lint, types, import contracts, tests
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest $(AT_ONCE)

soak: $(STAMP) ## Run the long tests at full size, in parts (PART=nights for one of them; one to two hours in all)
	@$(BIN)/python -m tests.soak $(PART)

bench: $(STAMP) ## Measure generations a second on this machine
	@$(BIN)/python -m bench

# Keeps the versions in constraints.txt; `make pins UPGRADE=--upgrade` takes the newest that are allowed.
# For every platform and Python 3.11 to 3.13, with names, versions and hashes, but without the address of an index.
COMPILE := $(UV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

pins: ## Regenerate constraints.txt from pyproject.toml (UPGRADE=--upgrade for newer versions)
	@test -x $(UV)/bin/uv || { $(PYTHON) -m venv $(UV) && $(UV)/bin/python -m pip install -qq uv; }
	@$(COMPILE) --group dev $(UPGRADE) pyproject.toml --output-file constraints.txt
	@cp constraints.txt $(UV)/running.txt
	@echo hatchling | $(COMPILE) pyproject.toml - --output-file $(UV)/running.txt
	@{ cat $(UV)/running.txt; echo "$(FOR_DEVELOPMENT)"; \
	    awk '!/^ / { other = !($$0 in runs) } NR == FNR { runs[$$0]; next } other' $(UV)/running.txt constraints.txt; \
	    } > $(UV)/constraints.txt && mv $(UV)/constraints.txt constraints.txt
	@echo "constraints.txt has $$(grep -c '==' constraints.txt) pins"

clean: ## Remove .venv, caches and build results; keep ledgers
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
