# Two entry points need nothing but Python 3.11+: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
# Plain `torch` brings gigabytes of CUDA on Linux where the index has no CPU build under that name:
# then pass PIP_FLAGS="--extra-index-url <torch's CPU index>".
PIP_FLAGS ?=
# Processes that share the tests; 0 runs them in this one.
TEST_PROCESSES ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)

.PHONY: demo test check unit slow fmt bench clean

$(VENV)/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) -e '.[dev]'
	touch $@

demo: $(VENV)/.runtime  ## tokenise the bundled clips, decode them again, show both
	$(BIN)/infotok run examples/clips demo-out --rate 0.5 --format both
	$(BIN)/infotok validate demo-out
	$(BIN)/infotok reconstruct demo-out --against examples/clips --side-by-side --to demo-out/videos
	@echo
	@echo "Look at demo-out/report.html, demo-out/README.md and demo-out/videos/"

test: check unit  ## everything a change has to pass

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadgroup --no-loadscope-reorder --durations 15

slow: $(VENV)/.dev  ## the minutes-long tests: twenty kills, every damaged file at full size
	$(BIN)/python -m pytest -m slow --timeout 3600

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## the CPU benchmarks behind the numbers of the README
	$(BIN)/python benchmarks/network.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/pipeline.py

clean:
	rm -rf $(VENV) demo-out
