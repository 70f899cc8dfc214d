# Needs a POSIX shell, make, and Python 3.11 or newer. `make` alone lists the targets.
#
#   PYTHON=…  the interpreter to make environments with (default: python3, or a newer pythonX.Y beside it)
#   VENV=…    where the environment lies (default: .venv)
#   ARGS=…    arguments for the target's program
#   COVERAGE=1  have `make test` measure branch coverage, and fail below 95 %
#   LOCKED=1  install the tested versions of release/dev.lock instead of the newest ones
#   LOWEST=1  install the oldest versions that pabal says it works with

SHELL = /bin/sh
PYTHON ?=
VENV = .venv
VENV_BENCH = .venv-bench
VENV_RELEASE = .venv-release
ARGS =
COVERAGE =
# One process of tests for each core, and one more for when they wait for a disk, a server or a process.
PARALLEL = --numprocesses $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 ))) --maxprocesses 5 --dist worksteal
# The tests start hundreds of processes; without bytecode each of them would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

CANDIDATES = $(if $(PYTHON),"$(PYTHON)",python3 python3.15 python3.14 python3.13 python3.12 python3.11)
BIN = $(VENV)/bin
PIP_INSTALL = -m pip install --quiet --quiet --disable-pip-version-check

.PHONY: help demo dist docs lock test test-browser test-crash test-processes test-races test-redis-full test-fuzz \
    screenshots lint format bench bench-quick guard install clean
.DELETE_ON_ERROR:

help: ## list the targets
	@echo 'usage: make <target> [PYTHON=python3.12] [VENV=.venv] [ARGS="..."]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

demo: $(VENV)/.installed-demo ## run the trading demo (ARGS="--tape FILE", ARGS="--resume", ...)
	@$(BIN)/pabal demo $(ARGS)

# With ARGS (a file, `-k word`) only that part runs, in one process. Counting branches nearly doubles the time of
# Python 3.11, so it is done where it is asked for: by `.ci/run`, once, and by whoever wants to know.
test: $(VENV)/.installed-dev ## run the tests (ARGS="-k retry": only those; COVERAGE=1: all, with branch coverage)
ifneq ($(strip $(ARGS)),)
	@$(BIN)/python -m pytest $(ARGS)
else ifneq ($(strip $(COVERAGE)),)
	@$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term --cov-report=json:$(VENV)/coverage.json
	@$(BIN)/python -c "$$CHECK_BRANCHES" $(VENV)/coverage.json
else
	@$(BIN)/python -m pytest $(PARALLEL)
endif

test-browser: $(VENV)/.installed-dev ## run the dashboard's tests in a real browser (needs Chromium)
	@$(BIN)/python -m pytest -m browser --numprocesses 2 --dist worksteal tests/dashboard $(ARGS)

screenshots: $(VENV)/.installed-dev ## take the dashboard's pictures for the documentation (needs Chromium)
	@$(BIN)/python -m tests.dashboard.screenshots $(ARGS)

test-crash: $(VENV)/.installed-dev ## run the crash tests with their full counts (long)
	@$(BIN)/python -m tests.crash --full $(ARGS)

test-processes: $(VENV)/.installed-dev ## kill process managers at every point of a step, 200 rounds
	@$(BIN)/python -m tests.cqrs.crash $(ARGS)

test-fuzz: $(VENV)/.installed-dev ## feed the decoder and the opener of files damaged bytes, for ten minutes
	@$(BIN)/python -m tests.crash.fuzz --report docs/reliability.md $(ARGS)

test-races: $(VENV)/.installed-dev ## two writers race on one aggregate 10,000 times
	@PABAL_RACE_ROUNDS=10000 $(BIN)/python -m pytest -q -p no:cacheprovider tests/eventsourcing/test_races.py $(ARGS)

test-redis-full: $(VENV)/.installed-dev ## run the tests of the bus on Redis, the long ones too (Valkey, and redis-server)
	@$(BIN)/python -m pytest -m "redis or not redis" tests/brokers $(ARGS)

lint: $(VENV)/.installed-dev ## ruff, mypy --strict, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## format the code and sort its imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

bench: $(VENV_BENCH)/.installed ## run the benchmarks in an environment of their own
	@$(VENV_BENCH)/bin/python -m benchmarks $(ARGS)

bench-quick: $(VENV_BENCH)/.installed ## run the benchmarks in small sizes
	@$(VENV_BENCH)/bin/python -m benchmarks --quick $(ARGS)

guard: $(VENV)/.installed-dev ## compare the instructions an event costs with the baseline (ARGS=--update: a new one)
	@$(BIN)/python -m benchmarks.guard $(ARGS)

docs: $(VENV)/.installed-docs ## build the documentation site, English and Korean, into build/site
	@$(BIN)/python docs/site/build.py $(ARGS)

# The wheel is installed where nothing else is, and used from outside the checkout.
dist: $(VENV_RELEASE)/.installed ## build wheel, sdist and a list of components (SBOM) into dist/, and try the wheel
	@rm -rf dist $(VENV_RELEASE)/clean
	@$(VENV_RELEASE)/bin/python -m build --outdir dist .
	@$(VENV_RELEASE)/bin/python -m venv $(VENV_RELEASE)/clean
	@$(VENV_RELEASE)/clean/bin/python $(PIP_INSTALL) dist/pabal-*.whl
	@cd / && "$(CURDIR)/$(VENV_RELEASE)/clean/bin/python" "$(CURDIR)/release/smoke.py"
	@$(VENV_RELEASE)/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
		--output-file dist/pabal.cdx.json $(VENV_RELEASE)/clean

lock: $(VENV_RELEASE)/.installed ## write the versions and hashes of everything that development needs into release/dev.lock
	@$(VENV_RELEASE)/bin/uv pip compile pyproject.toml --extra dev --extra docs --universal --generate-hashes \
		--python-version 3.11 --no-header --quiet --output-file release/dev.lock

install: $(VENV)/.installed-dev ## make the development environment

clean: ## remove environments, caches and reports
	rm -rf .venv .venv-bench .venv-release .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	rm -rf htmlcov coverage.json .coverage .coverage.*
	for folder in src tests benchmarks; do \
		if [ -d "$$folder" ]; then find "$$folder" -name __pycache__ -type d -prune -exec rm -rf {} +; fi; \
	done

# Each stamp is made anew when pyproject.toml changes. Sources are installed editable and need no new stamp.

$(VENV)/.installed-demo: pyproject.toml $(VENV)/.made
	@echo 'installing pabal with what the demo needs into $(VENV)'
	@$(BIN)/python $(PIP_INSTALL) --editable '.[cli]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.made
	@echo 'installing pabal with its development tools into $(VENV)'
	@if [ -n "$(LOCKED)" ]; then $(BIN)/python $(PIP_INSTALL) --require-hashes --requirement release/dev.lock; fi
	@if [ -n "$(LOWEST)" ]; then $(BIN)/python release/lowest.py >$(VENV)/lowest.txt; fi
	@$(BIN)/python $(PIP_INSTALL) --editable '.[dev]' $(if $(LOWEST),--constraint $(VENV)/lowest.txt)
	@touch $@

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.made
	@echo 'installing pabal and its site generator into $(VENV)'
	@$(BIN)/python $(PIP_INSTALL) --editable '.[cli,dashboard,docs,otel,prometheus,redis]'
	@touch $@

$(VENV_RELEASE)/.installed: release/requirements.txt $(VENV_RELEASE)/.made
	@$(VENV_RELEASE)/bin/python $(PIP_INSTALL) --requirement release/requirements.txt
	@touch $@

$(VENV_BENCH)/.installed: pyproject.toml benchmarks/requirements.txt $(VENV_BENCH)/.made
	@echo 'installing pabal and what the benchmarks compare it with into $(VENV_BENCH)'
	@$(VENV_BENCH)/bin/python $(PIP_INSTALL) --editable . --requirement benchmarks/requirements.txt
	@touch $@

$(VENV)/.made $(VENV_BENCH)/.made $(VENV_RELEASE)/.made:
	@python=; \
	for candidate in $(CANDIDATES); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'pabal needs Python 3.11 or newer. Tried:' >&2; \
		for candidate in $(CANDIDATES); do \
			echo "  $$candidate: $$("$$candidate" --version 2>/dev/null || echo 'not found, or does not run')" >&2; \
		done; \
		echo 'Install a newer Python, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11' >&2; \
		exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$python cannot make environments: its module ensurepip or venv is missing." >&2; \
		echo 'Debian and Ubuntu keep it in a package of its own: apt install python3-venv (or python3.11-venv, ...).' >&2; \
		echo 'Or name another interpreter: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11' >&2; \
		exit 1; \
	fi; \
	echo "making $(@D) with $$("$$python" --version)"; \
	"$$python" -m venv "$(@D)"
	@touch $@

# coverage's own threshold (95 %) mixes lines with branches, so it would let branches fall behind: they are held to
# 95 % by themselves.
define CHECK_BRANCHES
import json, sys
with open(sys.argv[1]) as file:
    totals = json.load(file)["totals"]
covered, branches = totals["covered_branches"], totals["num_branches"]
if covered < 0.95 * branches:
    sys.exit(f"branch coverage is {covered / branches:.1%} ({covered} of {branches}); 95% is required")
endef
export CHECK_BRANCHES
