# `make demo` and `make test` do all the set-up on a fresh machine; a second run starts at once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test fast nightly crash test-spark bench lint format lock reference package clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## Virtual environment in .venv, pinned dependencies, Java, Spark's jars
	@bootstrap/java.sh

$(READY): setup.py requirements.lock bootstrap/setup.sh bootstrap/spark-jars.lock bootstrap/spark_jars.py
	@PYTHON=$(PYTHON) bootstrap/setup.sh

demo: setup ## The main job, all of it, on this machine (ARGS="--csv PATH" for exports of your own)
	@$(BIN)/movement demo $(ARGS)

test: setup lint ## Everything that CI checks
	@bootstrap/chromium.sh
	@$(BIN)/python -m pytest -n 2 --dist loadscope $(ARGS)

fast: setup ## The tests that need neither Spark nor the embedded AWS
	@$(BIN)/python -m pytest -q -m "not spark and not aws" $(ARGS)

nightly: setup ## What takes too long for every change: thousands of examples, many kills
	@SOURCE_EXAMPLES=2000 SOURCE_KILLS=10 CRASH_KILLS=200 MOVE_EXAMPLES=3000 PACKAGE_FULL=1 GOLD_KILLS=3 \
		GOLD_INCREMENTS=15 $(BIN)/python -m pytest tests/source tests/crash tests/compaction tests/replay tests/deploy \
		tests/gold $(ARGS)

crash: setup ## Kill the streaming job N times (N=200), at its fault points and at random moments; half as often on Delta
	@CRASH_KILLS=$(or $(N),30) $(BIN)/python -m pytest tests/system/test_kill.py -k no_kill --log-cli-level=INFO $(ARGS)

test-spark: setup ## The streaming tests on another Spark: SPARK=4.0.2 or SPARK=4.2.0
	@bootstrap/test_spark.sh $(SPARK)

bench: setup ## The benchmarks; each of benchmarks/*.py takes --json FILE
	@for each in source stream ways parity compaction producer api report; do \
		echo "== $$each"; $(BIN)/python -m benchmarks.$$each --json .movement/bench-$$each.json || exit 1; done

lint: setup ## Formatter, linter, type checker
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy

format: setup ## Format the code and mend what the linter can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock: ## Pin the dependencies of setup.py anew in requirements.lock (needs uv)
	@uv pip compile setup.py --all-extras --universal --python-version 3.11 --generate-hashes --quiet \
		--custom-compile-command "make lock" --output-file requirements.lock

reference: setup ## Write conf/reference.yaml from the settings' classes
	@$(BIN)/python -m jobs.settings.reference > conf/reference.yaml

package: setup ## What EMR, Glue and Lambda take, in dist/release
	@$(BIN)/movement package $(ARGS)

clean: ## Remove what was installed and written here
	@test ! -x $(BIN)/movement || $(BIN)/movement local down
	@rm -rf .venv .movement build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis spark-warehouse
