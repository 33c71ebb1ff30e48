# make demo    a virtual flight, segmented by the bundled model, as video and report in demo/
# make test    the test suite
# make check   format, lint, types, layers
# make bench   the benchmarks (minutes; results in benchmarks/results/)
#
# Everything runs in the virtual environment .venv, which is made on first use and kept. The demo
# needs the light half of it; tests and checks add the trainer, the exporter and the tools.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check format bench hooks clean

demo: $(VENV)/runtime.stamp
	$(BIN)/cclseg demo -o demo

# The tests share the processors among themselves: libraries that take all of them for each test
# spend ten times the processor time waiting for one another.
test: $(VENV)/develop.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

check: $(VENV)/develop.stamp
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/develop.stamp
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Those that need a GPU are started by name.
bench: $(VENV)/develop.stamp
	for script in $(filter-out benchmarks/gpu_%,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python "$$script" || exit 1; done

# Checks each commit with the same tools and versions.
hooks: $(VENV)/develop.stamp
	$(PIP) install --quiet "pre-commit>=4"
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) build dist demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' is no Python 3.10 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' cannot make virtual environments; install its venv package" \
	    "(Debian, Ubuntu, JetPack: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/runtime.stamp: pyproject.toml $(VENV)/made.stamp
	$(PIP) install --quiet --editable ".[cpu]"
	@touch $@

$(VENV)/develop.stamp: pyproject.toml constraints.txt $(VENV)/made.stamp
	$(PIP) install --quiet --constraint constraints.txt --editable ".[all]" --group test --group test-trt --group lint
	@touch $@ $(VENV)/runtime.stamp
