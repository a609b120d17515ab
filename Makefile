PYTHON ?= python3
ONLY ?=
PINS ?=
PYTEST_ARGS ?=
# Most tests wait for servers and for time to pass; three at once keep two cores busy.
TEST_PROCESSES ?= 3

BIN := .venv/bin
PROTO_ENV := PATH="$(CURDIR)/.venv-proto/bin:$$PATH"
STUBS := clients/python/roomtape/v1
RELEASED := proto/released/roomtape.binpb
TYPED := service/roomtape_service clients/python/roomtape/client tests tools
NODE_MODULES := $(if $(wildcard clients/node/package.json),clients/node/node_modules/.stamp)

.DELETE_ON_ERROR:
.PHONY: help demo test test-faults test-system lint proto proto-check proto-release test-oldest pyright pins bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.service ## record a room on this machine, from nothing
	$(BIN)/roomtape demo

test: .venv/.dev ## unit, integration and property tests
	$(BIN)/pytest tests -m 'not system' --ignore tests/faults -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

test-faults: .venv/.dev ## 100 kills a store; FAULTS_KILLS, FAULTS_SEED and FAULTS_STORE choose others
	FAULTS_KILLS=$${FAULTS_KILLS:-100} $(BIN)/pytest tests/faults -rA $(PYTEST_ARGS)

test-system: .venv/.dev $(NODE_MODULES) pyright test-oldest ## whole processes with real peers, stores and databases
	$(BIN)/pytest tests/system $(PYTEST_ARGS)

test-oldest: .venv-oldest/.stamp ## the client on the oldest grpcio and protobuf it promises
	PYTHONPATH=clients/python .venv-oldest/bin/python -W error tools/import_client.py

pyright: .venv/.dev ## the client as users of pyright see it; needs node
	$(BIN)/pyright

lint: .venv/.dev proto-check ## style, types, contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(wildcard $(TYPED))
	$(BIN)/buf lint
	$(BIN)/buf format -d --exit-code
	@if [ -f $(RELEASED) ]; then set -x; $(BIN)/buf breaking --against $(RELEASED); fi

proto: .venv-proto/.stamp ## generate the Python stubs from proto/
	rm -rf .venv-proto/out
	$(PROTO_ENV) buf generate -o .venv-proto/out
	find $(STUBS) -name '*_pb2*.py*' -delete
	cp .venv-proto/out/$(STUBS)/* $(STUBS)

proto-check: .venv-proto/.stamp ## are the committed stubs those of proto/?
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PROTO_ENV) buf generate -o "$$fresh" && \
	diff -rq -x __pycache__ -x __init__.py "$$fresh/$(STUBS)" $(STUBS) || \
	{ echo "The stubs differ from proto/: run 'make proto' and commit what it writes." >&2; exit 1; }

proto-release: .venv-proto/.stamp ## make proto/ the baseline of `buf breaking`
	mkdir -p $(dir $(RELEASED))
	$(PROTO_ENV) buf build -o $(RELEASED)

bench: .venv/.dev ## measurements, all or `make bench ONLY=name`
	$(BIN)/python -m tests.bench $(ONLY)

pins: .venv-pins/.stamp ## pin requirements/*.txt again
	PATH="$(CURDIR)/.venv-pins/bin:$$PATH" tools/pin_requirements.sh $(PINS)

clean: ## remove environments, caches and everything built
	rm -rf .venv .venv-oldest .venv-proto .venv-pins .bench dist clients/python/dist clients/node/node_modules
	rm -rf .failpoints .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find service clients tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

%/bin/python:
	$(PYTHON) -m venv $*

.venv/.service: requirements/service.txt pyproject.toml clients/python/pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --require-hashes -r requirements/service.txt
	$(BIN)/pip install --quiet --no-build-isolation --no-deps -e clients/python -e .
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.service
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

.venv-proto/.stamp: requirements/proto.txt | .venv-proto/bin/python
	.venv-proto/bin/pip install --quiet --require-hashes -r requirements/proto.txt
	@touch $@

.venv-oldest/.stamp: requirements/oldest.txt | .venv-oldest/bin/python
	.venv-oldest/bin/pip install --quiet --require-hashes -r requirements/oldest.txt
	@touch $@

.venv-pins/.stamp: | .venv-pins/bin/python
	.venv-pins/bin/pip install --quiet uv
	@touch $@

clients/node/node_modules/.stamp: clients/node/package.json
	cd clients/node && npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
