# `make` alone lists the targets. An environment is made in .venv at first need, and again after its inputs change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALLED := $(VENV)/.installed
# More threads than a worker's share of the cores wait for each other: tests run in workers of one thread each.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-bounds coverage lint format docs wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## discover and draw directions of the embedded model: outputs/demo
	@$(BIN)/hspace experiment=demo

test: $(INSTALLED) ## the fast tests
	@$(PYTEST) -q -m "not gpu and not slow and not network"

test-all: $(INSTALLED) ## every test that this machine can run
	@$(PYTEST) -q

coverage: $(INSTALLED) ## the fast tests, with the share of lines that they run
	@$(PYTEST) -q -m "not gpu and not slow and not network" --cov --cov-report=term --cov-fail-under=90

test-bounds: ## the fast tests with the oldest releases that pyproject.toml allows, in an environment of their own
	@$(PYTHON) -m venv .venv/bounds
	@.venv/bounds/bin/python -m pip install -q --disable-pip-version-check uv
	@.venv/bounds/bin/uv pip install -q --python .venv/bounds/bin/python --resolution lowest-direct -e '.[dev]'
	@OMP_NUM_THREADS=1 .venv/bounds/bin/python -m pytest -q -n $(WORKERS) -m "not gpu and not slow and not network"

lint: $(INSTALLED) ## ruff, codespell and pyright, without changing anything
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell && $(BIN)/pyright
	@report=$$(PATH=$(CURDIR)/$(BIN):$$PATH PYTHONPATH=$(CURDIR) $(BIN)/pyright --verifytypes hspace --ignoreexternal) || { echo "$$report" | sed '/^Public modules/,/^$$/d'; exit 1; }

format: $(INSTALLED) ## repair what ruff can
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

docs: $(INSTALLED) ## the documentation, built strictly into outputs/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo outputs/site/index.html

wheel: $(INSTALLED) ## the wheel and the source archive, in dist/
	@rm -rf dist && $(BIN)/python -m build -q --outdir dist . && ls -sh dist

clean: ## remove the environment, caches and builds; results in outputs/ stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first: under the constraint pip then takes a local CPU wheel where one is offered.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "hspace needs Python 3.11 or newer; name one with: make $(or $(MAKECMDGOALS),test) PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
		{ echo "$(PYTHON) has no working venv module (Debian and Ubuntu: apt install python3-venv)" >&2; \
		rm -rf $(VENV); exit 1; }
	@echo "installing hspace and what it needs into $(VENV) (once, a few minutes)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
