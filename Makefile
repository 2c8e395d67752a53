# Every verb sets up what it needs: a virtual environment in .venv, from the hashed lock in tests/requirements.lock.
# It is made once, and again when the lock or pyproject.toml changes. Needs make, Python >= 3.11 and package registries.

PYTHON ?= python3
ARGS ?=
# How many processes share the tests. They wait more than they work: 3 take half the time, but some tests mind company.
JOBS ?= 1

VENV := .venv
BIN := $(VENV)/bin
LOCK := tests/requirements.lock
STAMP := $(VENV)/.installed
RELEASED := tests/meta/released.binpb

# For the plugins of protoc.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test test-fast test-clients check gen check-gen fmt clients bench bench-stores bench-workers bench-faults lock release-image clean
.PHONY: check-ruff check-format check-types check-imports check-proto

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r verb what; do \
		printf '  make %-14s %s\n' "$$verb" "$$what"; done

run: $(STAMP) ## a server with the example handlers, on 127.0.0.1:50051 (gRPC) and :8080 (HTTP); ARGS=… are passed on
	@exec $(BIN)/atlas serve --handlers docs/examples/archive.py $(ARGS)

demo: $(STAMP) ## a server of its own, and jobs that succeed, fail, retry, are cancelled and are followed across a cut
	@exec $(BIN)/python docs/examples/demo.py $(ARGS)

test: $(STAMP) check ## the checks and every test; ARGS=… are passed on to pytest
	$(BIN)/pytest $(if $(filter-out 1,$(JOBS)),-n $(JOBS) --dist loadfile --no-loadscope-reorder) $(ARGS)

test-fast: $(STAMP) ## the unit tests, in less than a minute
	$(BIN)/pytest -m 'not slow' tests/unit $(ARGS)

test-clients: $(STAMP) ## the example of every client, and grpcurl, against a live server
	$(BIN)/pytest tests/clients $(ARGS)

check: check-ruff check-format check-types check-imports check-proto check-gen ## lint, format, types, import layers, contract, generated files

check-ruff: $(STAMP)
	$(BIN)/ruff check

check-format: $(STAMP)
	$(BIN)/ruff format --check

check-types: $(STAMP)
	$(BIN)/mypy

check-imports: $(STAMP)
	$(BIN)/lint-imports --no-logo

check-proto: $(STAMP)
	cd proto && ../$(BIN)/buf lint && ../$(BIN)/buf breaking --against ../$(RELEASED)

gen: $(STAMP) ## write the generated files anew from proto/
	$(BIN)/python proto/generate.py
	$(BIN)/python proto/openapi.py
	$(BIN)/python -m atlas_grpc.client._generate_sync
	$(BIN)/python tests/meta/docs_tables.py

check-gen: $(STAMP) ## say whether the generated files are up to date
	$(BIN)/python proto/generate.py --check
	$(BIN)/python proto/openapi.py --check
	$(BIN)/python -m atlas_grpc.client._generate_sync --check
	$(BIN)/python tests/meta/docs_tables.py --check

fmt: $(STAMP) ## format the code and repair what the linter can
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

clients: $(STAMP) ## generate and build the clients whose toolchain is there; ARGS="go rust" only these
	$(BIN)/python clients/build.py $(ARGS)

bench: $(STAMP) ## measure against a bare grpc.aio echo server in the same run
	$(BIN)/python -m benchmarks $(ARGS)

bench-stores: $(STAMP) ## measure each store against its engine by itself; ARGS="--stores postgresql drain", ARGS=--full
	$(BIN)/python -m benchmarks.stores $(ARGS)

bench-workers: $(STAMP) ## measure remote workers; ARGS="--stores memory drain"
	$(BIN)/python -m benchmarks.workers $(ARGS)

bench-faults: $(STAMP) ## how soon a cancellation reaches a remote worker, and a dead one's jobs start elsewhere; ARGS="--stores memory kill"
	$(BIN)/python -m benchmarks.faults $(ARGS)

lock: $(STAMP) ## write tests/requirements.lock anew from pyproject.toml; ARGS=--upgrade takes the newest versions
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --group dev --all-extras --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command 'make lock' --output-file $(LOCK) $(ARGS) pyproject.toml

release-image: $(STAMP) ## at a release: record the contract that `make check` compares with from then on
	cd proto && ../$(BIN)/buf build --exclude-source-info --path atlas --output ../$(RELEASED)

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	rm -rf clients/*/build clients/*/gen clients/*/node_modules clients/*/target tests/gateway/proxy/build tests/gateway/proxy/gen
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two makes at the same time take turns, where there is flock.
$(STAMP): $(LOCK) pyproject.toml
	@$(if $(shell command -v flock 2>/dev/null),flock Makefile) sh -eu -c '\
	if ! $(BIN)/python -c "" 2>/dev/null; then \
		$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
			echo "Atlas needs Python 3.11 or newer, and $(PYTHON) is not. Name another one: make PYTHON=python3.12" >&2; exit 1; }; \
		$(PYTHON) -m venv --clear $(VENV) || { \
			echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu, install python3-venv" >&2; exit 1; }; \
	fi; \
	echo "installing into $(VENV) from $(LOCK)" >&2; \
	$(BIN)/python -m pip install --quiet --no-input --require-hashes --requirement $(LOCK) >&2; \
	$(BIN)/python -m pip install --quiet --no-input --no-deps --no-build-isolation --editable . >&2; \
	touch $@'
