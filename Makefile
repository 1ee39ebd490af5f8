# Everything runs in .venv, which is made and kept up to date by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Byte code is kept. Without it every process that a test starts compiles the package anew, and pytest rewrites every test.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
SECONDS ?= 600
.PHONY: help demo test quick brief lint bench fuzz clean

help: ## What can be run
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

demo: $(READY) ## Train on two photos, log the baseline to MLflow, compare three production sets with it
	$(BIN)/python examples/lightning_images.py

test: $(READY) ## All tests, doctests and examples
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

quick: $(READY) ## Style, types, and the tests that start no server, browser or program, without those of Keras
	@$(MAKE) --jobs=2 --output-sync=target --no-print-directory lint brief

brief: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow" --ignore=tests/keras --ignore=lensai_integrations/keras

lint: $(READY) ## Style, types and import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

BENCHMARKS := sketches.bank measures.images lensai.calls raw.delivered training.lightning_step training.keras_step \
	receiver.load drift.detection drift.alarms drift.accuracy drift.years drift.fleet drift.dependent \
	drift.updates gpu.counting

bench: $(READY) ## All measurements, each side by side with what it is compared with
	@for script in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$script || missed="$$missed $$script"; done; \
	test -z "$$missed" || { echo "failed, or missed an aim:$$missed"; exit 1; }

fuzz: $(READY) ## Mutants of all that comes from outside, for SECONDS=600; with SEED=n the same ones again
	$(BIN)/python fuzz/fuzz.py --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --progress-bar on --editable ".[lightning,keras,torchvision,mlflow,server,postgresql]" --group dev
	touch $@

clean: ## Remove what the demo and the tests wrote
	rm -rf demo mlflow.db lensai_baseline* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis fuzz/found
