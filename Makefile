# One word for each thing people do here. All of it lives in .venv; nothing needs root but `make test`,
# and that only to install a broker and a data set that are not there yet.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt
NODE_RED := $(VENV)/node-red
ASYNCAPI := schemas/node_modules
# Three on two cores: a third of the time a test waits for processes and brokers. In the order of collection:
# short files end the run, so that all end together.
SHARED := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
# Counting lines makes these take three times as long, and would all others that run through core.
COVERED := tests/core tests/wire

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint schemas docs bench chaos fuzz soak clean system node

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.ready-demo  ## frames through devices on a real broker; more with ARGS="--frames 2000"
	@$(BIN)/mqtt-mdi demo $(ARGS)

test: $(VENV)/.ready-test system node  ## lint, types, layers, tests and coverage; one test with ARGS="-k name"
	@$(MAKE) --no-print-directory lint
	@if test -n "$(ARGS)"; then $(BIN)/python -m pytest $(ARGS); else \
		$(SHARED) $(COVERED) --cov --cov-report= && \
		$(BIN)/python -m coverage report --skip-covered --fail-under=95 && \
		$(SHARED) $(COVERED:%=--ignore=%) -m "not alone" && \
		$(BIN)/python -m pytest -m alone $$(grep -rlF --include='test_*.py' mark.alone tests); fi

lint: $(VENV)/.ready-test  ## ruff, mypy and the layers of import-linter
	@$(BIN)/ruff check . deploy/check-compose
	@$(BIN)/ruff format --check . deploy/check-compose
	@$(BIN)/mypy
	@$(BIN)/mypy deploy/check-compose
	@$(BIN)/lint-imports

schemas: $(VENV)/.ready-demo  ## write schemas/ and docs/reference/ anew after a change of wire, policy or commands
	@$(BIN)/python -m mqtt_mdi.wire.schemas schemas
	@$(BIN)/python -m mqtt_mdi.cli.reference docs/reference

docs: $(ASYNCAPI)/.ready  ## the topics and messages as one page, build/docs/asyncapi.html; needs Node.js and npm
	@cd schemas && npm run --silent render
	@echo build/docs/asyncapi.html

bench: $(VENV)/.ready-test  ## print the tables of benchmarks/
	@$(BIN)/python benchmarks/run.py $(ARGS)

chaos: $(VENV)/.ready-demo  ## strike a running pipeline and count its frames; shorter with ARGS="--frames 1000"
	@PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

soak: $(VENV)/.ready-demo  ## 200,000 frames, and the memory of every process; ARGS="--frames 50000"
	@PYTHONPATH=tests $(BIN)/python -m chaos.soak $(ARGS)

fuzz: $(VENV)/.ready-demo  ## hostile bytes for every decoder, a million; fewer with ARGS="--inputs 100000"
	@$(INSTALL) -e '.[fuzz]' || $(INSTALL) hypothesis
	@PYTHONPATH=tests $(BIN)/python -m fuzz $(ARGS)

clean:  ## remove what builds and tests left; .venv stays
	@rm -rf build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find mqtt_mdi tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "mqtt-mdi needs Python 3.11 or newer and '$(PYTHON)' is not;" \
			"install one and name it: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-demo: $(INPUTS) | $(BIN)/python
	@echo "installing mqtt-mdi into $(VENV) (once, about half a minute)"
	@$(INSTALL) -e '.[page]'
	@touch $@

$(VENV)/.ready-test: $(INPUTS) | $(BIN)/python
	@echo "installing mqtt-mdi with torch and the test tools into $(VENV) (once, a few minutes)"
	@$(INSTALL) -e '.[test]'
	@touch $(VENV)/.ready-demo $@

$(ASYNCAPI)/.ready: schemas/package.json schemas/package-lock.json
	@echo "fetching AsyncAPI's parser and page into schemas/ (once, about half a minute)"
	@cd schemas && npm ci --ignore-scripts --silent --fetch-retries=1 --fetch-timeout=60000
	@touch $@

$(NODE_RED)/.ready: | $(BIN)/python
	@echo "fetching Node-RED into $(NODE_RED) (once, about half a minute)"
	@npm install --prefix $(NODE_RED) --silent --no-audit --no-fund --omit=optional --ignore-scripts \
		--fetch-retries=1 --fetch-timeout=60000 node-red@4.1.15 >/dev/null
	@touch $@

# Tests that need something which cannot be had skip and say why, so nothing here may fail the run.
node:
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory --silent --keep-going $(ASYNCAPI)/.ready $(NODE_RED)/.ready || \
			echo "npm failed; some tests will skip"; \
	else echo "no node or npm on PATH; tests that need them will skip"; fi

system:
	@missing=; PATH=$$PATH:/usr/sbin; \
	command -v mosquitto >/dev/null || missing="$$missing mosquitto"; \
	command -v mosquitto_sub >/dev/null || missing="$$missing mosquitto-clients"; \
	command -v sqlite3 >/dev/null || missing="$$missing sqlite3"; \
	command -v chromium >/dev/null || missing="$$missing chromium fonts-dejavu-core"; \
	command -v prometheus >/dev/null && command -v promtool >/dev/null || missing="$$missing prometheus"; \
	test -d /usr/share/datasets/fashion-mnist || missing="$$missing dataset-fashion-mnist"; \
	test -z "$$missing" && exit 0; \
	sudo=; test "$$(id -u)" = 0 || sudo="sudo -n"; \
	if command -v apt-get >/dev/null && $$sudo true 2>/dev/null; then \
		echo "installing with apt-get:$$missing"; \
		{ $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
			--no-install-recommends $$missing; } >/dev/null || echo "apt-get failed; some tests will skip"; \
	else echo "not installed:$$missing; tests that need them will skip"; fi
