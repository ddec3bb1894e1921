# Two commands matter: `make run` and `make test`. Both set up .venv themselves from the versions in requirements.lock.

PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock
PYTEST = $(VENV)/bin/python -m pytest

.PHONY: run test lint index soak bench clean
.DEFAULT_GOAL := run

# One file per set of extras says that the set is installed; it is older than what it depends on after a change.
$(VENV)/.installed-%: requirements.lock pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[$*]"
	touch $@

run: $(VENV)/.installed-server  ## the sandbox: server, GRID, queued task, poller, results
	$(VENV)/bin/pidml sandbox

test: $(VENV)/.installed-dev  ## the test suite
	$(PYTEST) -m "not soak" --numprocesses=2 --dist=loadfile

lint: $(VENV)/.installed-dev  ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

index: $(VENV)/.installed-dev  ## renew configs/law-index after a task or parameter was added
	$(VENV)/bin/law index --quiet

soak: $(VENV)/.installed-dev  ## long fault injection; PIDML_SOAK_KILLS=50, PIDML_SOAK_SECONDS=1800
	$(PYTEST) -m soak -s

bench: $(VENV)/.installed-dev  ## every figure in the README, one JSON line each
	for script in benchmarks/[!_c]*.py; do $(VENV)/bin/python $$script || exit 1; done

clean:  ## caches; outputs in store/ and .sandbox/ stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
