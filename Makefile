# make run: set up and run the default study. make test: set up and run the tests. Nothing else needed
# than Python 3.11 or newer and a package registry that pip reaches.
SHELL := bash
PYTHON ?= python3
CORES ?= 2
STUDY ?= # as in config/config.yaml
BIN := .venv/bin
# Not compiling what is never imported saves more than a minute of the installation; what is imported
# is then compiled once, unless the environment forbids to keep it.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check

.PHONY: run install test test-all test-random test-slurm lint bench-peers clean
run: install
	source $(BIN)/activate && snakemake --cores $(CORES) $(if $(STUDY),--config study=$(STUDY)) && recscale report $(STUDY)

install: .venv/installed

.venv/installed: envs/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"recscale needs Python 3.11 or newer; $(PYTHON) is {v[0]}.{v[1]} (make PYTHON=python3.12 ...)")'
	$(PYTHON) -m venv .venv
	$(PIP) --requirement envs/lock.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/installed-dev: envs/lock-dev.txt .venv/installed
	$(PIP) --requirement envs/lock-dev.txt
	@touch $@

test: .venv/installed-dev # a file of tests is run by one process: its files are made once
	source $(BIN)/activate && python -m pytest -n $(CORES) --dist loadfile

test-all: .venv/installed-dev # the heavy ones too
	source $(BIN)/activate && python -m pytest -m ""

test-random: .venv/installed-dev # new examples of the rules that hold for all inputs
	source $(BIN)/activate && HYPOTHESIS_PROFILE=random python -m pytest -n $(CORES) -m 'hypothesis and not heavy'

# On a SLURM of its own: with RECSCALE_TEST_SLURM=1, as root; installs packages, writes /etc/slurm.
test-slurm: .venv/installed-dev
	source $(BIN)/activate && python -m pytest tests/slurm --durations=0 -vv

lint: .venv/installed-dev
	source $(BIN)/activate && ruff check . && ruff format --check . && mypy && lint-imports && snakefmt --check Snakefile workflow

# The libraries that recscale bench compares itself with, each in an environment of its own.
bench-peers: .venv/installed .peers/rectools/installed .peers/recbole/installed
	source $(BIN)/activate && recscale bench --peers .peers --json bench.json

.peers/%/installed: benchmarks/peers/%.lock.txt
	$(PYTHON) -m venv .peers/$*
	.peers/$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

clean:
	rm -rf .venv .peers
