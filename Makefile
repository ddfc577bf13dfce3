# Every target works on a fresh machine: the first that needs packages makes .venv and installs into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
SPREAD := --numprocesses auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check format lint types docs bench bench-real torture dist clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(STAMP) ## Teacher, student alone, distilled student, one table, one ONNX file: on drawn faces, under 6 minutes.
	$(BIN)/python -m benchmarks.demo --out $(DEMO)

test: $(STAMP) ## Everything the README promises, by a process for each core; its networks are too small for threads.
	OMP_NUM_THREADS=1 $(BIN)/pytest $(SPREAD)

test-fast: $(STAMP) ## The tests that take no more than a few seconds each.
	OMP_NUM_THREADS=1 $(BIN)/pytest $(SPREAD) -m "not slow"

check: lint types test ## What CI runs.

format: $(STAMP) ## Put the code into its one form.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP) ## Look for mistakes and for code out of form.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check the types.
	$(BIN)/mypy facekd cli

docs: $(STAMP) ## Write the generated blocks of README.md and benchmarks/RESULTS.md again.
	$(BIN)/python -m benchmarks.documents --write

bench: $(STAMP) ## Run the quick benchmarks; raw figures go to benchmarks/results/.
	$(BIN)/python -m benchmarks.synthetic_speed --out benchmarks/results/synthetic_speed.json
	$(BIN)/python -m benchmarks.data_loading --out benchmarks/results/data_loading.json

bench-real: $(STAMP) ## The study on real faces: make bench-real FACES=folder of faces and models; goes on where it stopped.
	$(BIN)/python -m benchmarks.real_faces $(FACES)

torture: $(STAMP) ## Kill, starve and damage runs, and damage files of every format: minutes on two cores.
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python -m benchmarks.torture --out benchmarks/results/torture.json

dist: $(STAMP) ## Build the wheel and the source archive.
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove what make made, but not runs.
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
