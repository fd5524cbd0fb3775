# Every command of the project. `make help` lists them; nothing else is needed to work here.

.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
# Targets that ask for tests or tools install the development lock, which holds the runtime's too.
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
CLIENTS := $(VENV)/clients/.installed

# `run` and `demo` are one simple command each: make passes SIGTERM on to such a command only.

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(RUNTIME) ## a working product without any account: simulator, Redis, gateway, jobs
	@$(BIN)/python -m deploy.local demo --stop-with-parent

.PHONY: run
run: $(RUNTIME) ## the same with the real upstream; reads .env
	@$(BIN)/python -m deploy.local run --stop-with-parent

.PHONY: setup
setup: $(RUNTIME) ## the virtual environment with the locked dependencies

.PHONY: test
test: $(DEVELOPMENT) ## the whole suite; REQUIRE_COMPONENTS=1 fails where a component is missing
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: check
check: $(DEVELOPMENT) ## format, lint, types, import contracts, generated docs
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m deploy.docs check

.PHONY: format
format: $(DEVELOPMENT) ## format the code and repair what the linter can
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

.PHONY: docs
docs: $(DEVELOPMENT) ## write .env.example and the generated sections of the README
	@$(BIN)/python -m deploy.docs write

.PHONY: golden
golden: $(DEVELOPMENT) ## write the golden files anew; read the difference before you commit it
	@$(BIN)/python -m tests.golden_files

.PHONY: bench
bench: $(DEVELOPMENT) ## the load rig and its report
	@$(BIN)/python -m tests.bench

.PHONY: clients
clients: $(DEVELOPMENT) $(CLIENTS) ## real agents and SDKs end to end; writes the compatibility table
	@REQUIRE_COMPONENTS=1 $(BIN)/python -m pytest tests/clients --write-seen $(PYTEST_ARGS); \
		status=$$?; $(BIN)/python -m deploy.docs write && exit $$status

.PHONY: soak
soak: $(DEVELOPMENT) ## the kill loops and the long run in full counts, with a report
	@$(BIN)/python -m tests.soak

.PHONY: lock
lock: ## resolve the dependencies anew (needs uv)
	@uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--custom-compile-command "make lock" pyproject.toml -o requirements.txt
	@uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--custom-compile-command "make lock" pyproject.toml --group dev \
		-c requirements.txt -o requirements-dev.txt

.PHONY: clean
clean: ## remove the environment and every cache; keeps .env and data/
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache reports
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is made last, so an install that was cut off is done again; the second start is instant.
$(RUNTIME): requirements.txt $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
		--require-hashes -r requirements.txt >&2
	@touch $@

$(DEVELOPMENT): requirements-dev.txt requirements.txt $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
		--require-hashes -r requirements-dev.txt >&2
	@touch $(RUNTIME) $@

# `npm ci` refuses this lock: Qwen Code names optional packages that were never published. `install`
# keeps to the lock otherwise, and checks its hashes.
$(CLIENTS): tests/clients/package.json tests/clients/package-lock.json $(BIN)/python
	@command -v npm >/dev/null || { \
		echo "npm with Node >= 20 is needed: https://nodejs.org (Debian: apt-get install npm)" >&2; \
		exit 1; \
	}
	@mkdir -p $(@D) && cp tests/clients/package.json tests/clients/package-lock.json $(@D)
	@npm install --prefix $(@D) --no-save --no-audit --no-fund --loglevel=error >&2
	@touch $@

# PYTHON=… chooses another one; otherwise the first that is new enough and can make environments.
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
		if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
				2>/dev/null; then \
			echo "setting up $(VENV) with $$($$python --version); this takes a minute, once" >&2; \
			exec $$python -m venv --clear $(VENV); \
		fi; \
	done; \
	echo "No Python >= 3.11 with venv found: install one (apt-get install python3-venv," \
		"brew install python), or say which: make PYTHON=/path/to/python3.12" >&2; \
	exit 1
