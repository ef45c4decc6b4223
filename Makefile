# make demo | test | lint | bench. Needs Python 3.11 or newer with pip and venv; everything else goes into .venv.
# PYTHON=python3.12 make … picks the interpreter; PIP_FIND_LINKS and other pip settings pass through the environment.

PYTHON ?= python3
BIN := .venv/bin
# Two cores are the smallest machine we promise to work on; more workers than that only pay for more imports of torch.
WORKERS ?= 2

.DELETE_ON_ERROR:
.PHONY: demo test lint bench clean

demo: .venv/installed
	$(BIN)/pathosyn demo --out demo

test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-dev
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

# torch and the package go in with one pip command: torch's upper bound then holds for every package that asks for it.
.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch .venv/installed $@

clean:
	rm -rf .venv demo
