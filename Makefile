# Every target makes the virtual environment that it needs; nothing has to be installed or activated by hand.
# A stamp inside the environment says which of the dependency groups in pyproject.toml it holds; it is made anew when
# the pinned versions change.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
WHEEL_VENV := .venv-wheel
LOWEST_VENV := .venv-lowest
LOCK_VENV := .venv-lock
# One for each file of pinned versions, so that the neighbours bind nobody else's versions.
NEIGHBOURS := $(patsubst tests/ecosystem/neighbours/%.txt,.venv-neighbours/%/.made,$(wildcard tests/ecosystem/neighbours/*.txt))
PINNED := .constraints.txt
# aioboto3 demands an old botocore. The newest boto3 and aiobotocore have an environment and pins of their own.
CLIENTS := boto3 aiobotocore
RUN := $(VENV)/bin/python -m
INSTALL := -m pip install --quiet --disable-pip-version-check --no-build-isolation --constraint $(PINNED)

# `make PYTHON=/path/to/python3.12 test` chooses one; otherwise the first of these that will do.
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)

# Most tests wait for something, so more of them run side by side than there are cores. Tests that share something, or
# that would be in each other's way, carry the mark xdist_group and run one after the other.
WORKERS := 6
SIDE_BY_SIDE := --numprocesses $(WORKERS) --dist loadgroup

.PHONY: help demo demo-task test lint format types unit pytest clients zoo bench docs wheel wheel-test coverage dist lowest pythons neighbours lock clean python

help: ## say what can be made (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## a rolling deployment of 4 tasks and 2,000 clients, before and after, in about a minute and a half
	$(RUN) example_app.rollout $(ARGS)

demo-task: $(VENV)/.demo ## one task of the example leaves with 500 real WebSockets (starlette-drain rehearse), in about a minute
	$(RUN) starlette_drain rehearse example_app.server:app --path '/devices/{n}' $(ARGS)

test: lint types docs clients wheel-test ## everything that must hold: lint, types, docs, all tests of the built wheel

lint: $(VENV)/.check ## ruff: rules and format
	$(RUN) ruff check .
	$(RUN) ruff format --check .

format: $(VENV)/.check ## ruff: bring the sources into shape
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

types: $(VENV)/.check $(VENV)/.test ## mypy --strict, and pyright on the public API as users write it
	$(RUN) mypy --strict
	$(RUN) mypy --strict tests/typing
	$(RUN) basedpyright --pythonpath $(VENV)/bin/python

unit: $(VENV)/.test ## the fast tests only (ARGS="-k plan" goes to pytest)
	$(RUN) pytest tests/unit $(ARGS)

pytest: $(VENV)/.ecosystem $(NEIGHBOURS) ## all tests, against the sources: unit, integration, e2e and ecosystem (ARGS goes to pytest)
	$(RUN) pytest $(SIDE_BY_SIDE) tests $(ARGS)

clients: $(CLIENTS:%=.venv-%/.client) ## each AWS client in an environment of its own, and the newest model of AWS
	@for name in $(CLIENTS); do \
	  .venv-$$name/bin/python -m pytest tests/integration/aws/test_clients.py tests/integration/aws/test_aws_model.py; done

zoo: $(VENV)/.ecosystem ## what real clients do on every ending: the data of plan and the lab, and the page's tables (tests/ecosystem/zoo)
	PYTHONPATH=tests/ecosystem $(RUN) zoo

bench: $(VENV)/.test ## the benchmarks, with their figures (about 45 minutes; ARGS="-k memory" for one of them)
	$(RUN) pytest --override-ini 'python_files=bench_*.py' --capture=no tests/bench $(ARGS)

docs: $(VENV)/.docs ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --clean --config-file .mkdocs.yml

wheel: $(VENV)/.made
	@rm -rf dist
	$(RUN) pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

# The tests are copied away from the sources, so that `import starlette_drain` can only find the wheel, in the tests and
# in every process that they start. What is about the sources themselves finds them by STARLETTE_DRAIN_SOURCES. A run
# takes a few minutes; what holds one up for longer (pytest-xdist may wait for a worker that crashed) ends it.
wheel-test: wheel $(WHEEL_VENV)/.ecosystem $(NEIGHBOURS) ## build the wheel, install it, run all tests against it (ARGS goes to pytest)
	@$(WHEEL_VENV)/bin/python $(INSTALL) --no-deps --force-reinstall dist/*.whl
	@root=$$PWD; python="$$root/$(WHEEL_VENV)/bin/python"; apart=$$(mktemp -d); trap 'rm -rf "$$apart"' EXIT; \
	cp -R tests docs example_app pyproject.toml README.md Makefile .mkdocs.yml "$$apart"; cd "$$apart"; \
	"$$python" -c 'import sysconfig, starlette_drain as package; \
	where = package.__file__; print("Testing", where); \
	assert where.startswith(sysconfig.get_path("purelib")), "this is not the installed wheel"'; \
	STARLETTE_DRAIN_SOURCES="$$root" \
	timeout --kill-after=10 3000 "$$python" -m pytest -o cache_dir="$$root/.pytest_cache" $(SIDE_BY_SIDE) tests $(ARGS)

# Apart from `make test`: measuring doubles what the tests compute. Measured in the processes of the tests only: the
# servers that others start are ended by signals, as in production.
coverage: $(VENV)/.ecosystem ## the branch coverage of the unit and integration tests, and that it is high enough
	$(RUN) pytest $(SIDE_BY_SIDE) --cov --cov-report= tests/unit tests/integration $(ARGS)
	$(RUN) coverage report --skip-covered --show-missing --fail-under=95
	$(RUN) coverage report --skip-covered --show-missing --fail-under=99 \
	  --include='starlette_drain/_core/*,starlette_drain/_engine/*'

dist: $(VENV)/.made ## what is published: the wheel and the sources, in dist/
	@rm -rf dist
	$(RUN) hatchling build

# The package at its word: of what it requires, the versions that it calls the lowest. The tools of the tests are new,
# and warn of what the old packages do; those warnings are not ours. Left out is what compares FakeAWS with a newer model.
lowest: $(LOWEST_VENV)/.made ## unit and integration tests with the oldest versions that pyproject.toml allows
	@$(LOWEST_VENV)/bin/python -c 'import tomllib; \
	project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	bounds = project["dependencies"] + project["optional-dependencies"]["aws"]; \
	print(*(each.replace(">=", "==") for each in bounds), sep="\n")' >$(LOWEST_VENV)/lowest.txt
	@$(LOWEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
	  --constraint $(LOWEST_VENV)/lowest.txt --editable '.[aws]' --group test
	$(LOWEST_VENV)/bin/python -m pytest -W ignore::DeprecationWarning tests/unit tests/integration \
	  --deselect tests/integration/aws/test_aws_sources_over_sockets.py::test_deployments_are_what_the_model_says $(ARGS)

pythons: $(VENV)/.pythons ## all tests on each Python supported (about a quarter of an hour each; ARGS="3.14 -- tests/unit")
	$(VENV)/bin/python tests/pythons.py $(ARGS)

neighbours: $(NEIGHBOURS) ## the environments of what tests/ecosystem/test_neighbours.py tries

# The lowest Python supported decides: what it can install, the later ones can. Nothing of this project is in the file.
lock: ## pin the newest versions of everything the groups name, in .constraints.txt (needs python3.11)
	@python3.11 -c '' || { echo 'make lock needs python3.11, the lowest version supported.' >&2; exit 1; }
	python3.11 -m venv --clear $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(LOCK_VENV)/bin/python -m pip install --quiet --editable '.[aws]' \
	  --group ecosystem --group check --group docs --group build --group pythons
	{ echo '# Made by `make lock`: the versions that `make demo` and `make test` install.'; \
	  $(LOCK_VENV)/bin/python -m pip freeze --all --exclude-editable --exclude setuptools; } >$(PINNED).new
	mv $(PINNED).new $(PINNED)
	@for name in $(CLIENTS); do \
	  python3.11 -m venv --clear $(LOCK_VENV); \
	  $(LOCK_VENV)/bin/python -m pip install --quiet --upgrade pip; \
	  $(LOCK_VENV)/bin/python -m pip install --quiet --editable ".[aws-$$name]" --group clients --group build; \
	  { echo '# Made by `make lock`: the versions that `make clients` installs.'; \
	    $(LOCK_VENV)/bin/python -m pip freeze --all --exclude-editable --exclude setuptools; } >.constraints-$$name.txt; done
	for names in tests/ecosystem/neighbours/*.in; do \
	  python3.11 -m venv --clear $(LOCK_VENV); \
	  $(LOCK_VENV)/bin/python -m pip install --quiet --upgrade pip; \
	  $(LOCK_VENV)/bin/python -m pip install --quiet --requirement "$$names"; \
	  { echo '# Made by `make lock`.'; \
	    $(LOCK_VENV)/bin/python -m pip freeze --all --exclude pip --exclude setuptools; } >"$${names%.in}.txt"; \
	done
	rm -rf $(LOCK_VENV)

clean: ## remove everything that was made
	rm -rf $(VENV) $(WHEEL_VENV) $(LOWEST_VENV) $(LOCK_VENV) $(CLIENTS:%=.venv-%) .venv-neighbours .venv-pythons dist site bench-results rollout-results .mypy_cache .pytest_cache .ruff_cache \
	  .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A name on the PATH may be no Python at all (version switchers leave such stubs), so each is asked.
python:
	@half=; for name in $(PYTHONS); do \
	  "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  "$$name" -c 'import ensurepip, venv' 2>/dev/null || { half=$$name; continue; }; \
	  echo "$$name"; exit 0; \
	done; \
	if [ -n "$$half" ]; then \
	  echo "$$half cannot make virtual environments: on Debian and Ubuntu, apt-get install python3-venv" >&2; \
	else \
	  echo "No Python 3.11 or later among: $(PYTHONS). Install one, or name it: make PYTHON=/path/to/python" >&2; \
	fi; exit 1

# Dependency groups need pip 25.1; a new environment brings the pip of its Python, so that one is replaced first.
%/.made: $(PINNED)
	@python=$$($(MAKE) --silent --no-print-directory python); echo "Making $* with $$python"; \
	"$$python" -m venv --clear $*
	@$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(PINNED) pip
	@$*/bin/python $(INSTALL) --group build
	@touch $@

# All that the neighbours need is in the file, so nothing has to be resolved.
.venv-neighbours/%/.made: tests/ecosystem/neighbours/%.txt
	@python=$$($(MAKE) --silent --no-print-directory python); echo "Making $(@D) with $$python"; \
	"$$python" -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

$(VENV)/.package: $(VENV)/.made pyproject.toml
	@$(VENV)/bin/python $(INSTALL) --editable '.[aws]'
	@touch $@

$(VENV)/.demo $(VENV)/.test $(VENV)/.ecosystem $(VENV)/.check $(VENV)/.docs $(VENV)/.pythons: $(VENV)/.%: $(VENV)/.package
	@$(VENV)/bin/python $(INSTALL) --group $*
	@touch $@

$(CLIENTS:%=.venv-%/.client): .venv-%/.client: .venv-%/.made .constraints-%.txt pyproject.toml
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
	  --constraint .constraints-$*.txt --editable '.[aws-$*]' --group clients
	@touch $@

$(WHEEL_VENV)/.ecosystem: $(WHEEL_VENV)/.made pyproject.toml | wheel
	@$(WHEEL_VENV)/bin/python $(INSTALL) "$$(echo dist/*.whl)[aws]" --group ecosystem
	@touch $@
