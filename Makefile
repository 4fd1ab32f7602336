# Thin targets; the work is in the package. PYTHON chooses the interpreter that .venv is made with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --progress-bar off --no-compile
STAMP := $(VENV)/.installed
SOURCES := pyproject.toml CMakeLists.txt $(wildcard kernels/cpu/*.cc kernels/cpu/*.h)

.PHONY: demo test ready browser bench gpu lint clean tools packages native

demo: $(STAMP)
	$(BIN)/qscore demo

test: ready
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n auto --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Side by side: packages, our own kernels, and the browser.
ready:
	$(MAKE) --no-print-directory --jobs 3 $(STAMP) browser

# Debian's Chromium, in which the tests open reports; they say so where it is missing.
browser:
	for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || true

bench: $(STAMP)
	$(BIN)/python -m pytest -q benchmarks/micro --benchmark-max-time=0.1 --benchmark-columns=median,iqr,rounds
	$(BIN)/python -m benchmarks.run --device cpu

# On a machine with a GPU, from the source tree alone: needs torch, triton and pytest, installs nothing.
gpu:
	$(PYTHON) -m benchmarks.gpu

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build dist .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Everything is installed here and nowhere else: the project, editable, with its native kernels and tools.
$(STAMP): $(SOURCES)
	$(PYTHON) -c 'import sys; sys.exit("qscore-fast needs Python 3.11 or newer, this is " + sys.version if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(MAKE) --no-print-directory tools
	$(MAKE) --no-print-directory packages native
	touch $@

# What the native kernels are built with. pip would take it anew into a folder of each build's own, and so compile
# every source again.
tools:
	$(BIN)/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["build"], sep="\n")' \
	  | $(PIP) --requirement /dev/stdin

# The one waits for a mirror and a disk, the other for a compiler. Bytecode is left to the first import: most of it
# is of modules that nothing here imports.
packages:
	$(PIP) --only-deps ".[dev]"

native:
	$(PIP) --no-deps --no-build-isolation --editable .
