# `make demo` and `make test` set everything up on a fresh machine. A second run skips the set-up.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CLASSES := .venv/spark-classes.jsa

.DEFAULT_GOAL := help
.PHONY: help setup demo test fast nightly crash test-spark bench lint format lock reference package clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## Virtual environment in .venv, pinned dependencies, Java, Spark's jars
	@bootstrap/java.sh

$(READY): setup.py requirements.lock bootstrap/setup.sh bootstrap/spark-jars.lock bootstrap/spark_jars.py
	@PYTHON=$(PYTHON) bootstrap/setup.sh

$(CLASSES): $(READY)
	@bootstrap/java.sh && bootstrap/spark_classes.sh

demo: setup ## Run the whole main job on this machine (ARGS="--csv PATH": exports of your own; ARGS="--example clicks": another stream)
	@$(BIN)/movement demo $(ARGS)

test: setup lint $(CLASSES) ## Run everything that CI checks
	@bootstrap/chromium.sh
	@$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

fast: setup ## Run the tests that work without Spark and without the embedded AWS
	@EXAMPLES=0.1 $(BIN)/python -m pytest -q -n 2 --dist loadscope -m "not spark and not aws" $(ARGS)

nightly: setup $(CLASSES) ## Run what takes too long for every change: thousands of examples, many kills
	@NIGHTLY=1 EXAMPLES=20 SOURCE_KILLS=10 CRASH_KILLS=200 PACKAGE_FULL=1 GOLD_KILLS=3 \
		GOLD_INCREMENTS=15 $(BIN)/python -m pytest tests/spark_kinesis tests/system tests/jobs/maintenance \
		tests/jobs/gold tests/jobs/write tests/infra tests/movement/packaging tests/movement/contract $(ARGS)

crash: setup ## Kill the streaming job N times (N=200) at fault points and at random moments, half as often on Delta
	@CRASH_KILLS=$(or $(N),30) $(BIN)/python -m pytest tests/system/test_kill.py -k no_kill --log-cli-level=INFO $(ARGS)

test-spark: setup ## Run the streaming tests on another Spark: SPARK=4.0.2 or SPARK=4.2.0
	@bootstrap/test_spark.sh $(SPARK)

bench: setup ## Run the benchmarks; each of benchmarks/*.py takes --json FILE
	@for each in source stream ways parity compaction producer api report; do \
		echo "== $$each"; $(BIN)/python -m benchmarks.$$each --json .movement/bench-$$each.json || exit 1; done

lint: setup ## Run the formatter, the linter and the type checker
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy

format: setup ## Format the code and apply the linter's fixes
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock: ## Update requirements.lock from setup.py (needs uv)
	@uv pip compile setup.py --all-extras --universal --python-version 3.11 --generate-hashes --quiet \
		--custom-compile-command "make lock" --output-file requirements.lock

reference: setup ## Write conf/reference.yaml from the classes of the settings
	@$(BIN)/python -m jobs.settings.reference > conf/reference.yaml

package: setup ## Build the release for EMR, Glue and Lambda in dist/release
	@$(BIN)/movement package $(ARGS)

clean: ## Remove everything that was installed or written here
	@test ! -x $(BIN)/movement || $(BIN)/movement local down
	@rm -rf .venv .movement build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis spark-warehouse
