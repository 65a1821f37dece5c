# Each target does all its own set-up: a virtual environment in .venv, filled once and again
# whenever pyproject.toml changes. Another Python or place: make test PYTHON=python3.12 VENV=/tmp/v

PYTHON ?= python3
VENV ?= .venv
SPEC ?= examples/light_sdi.toml
PYTEST_ARGS ?= -n 2

bin := $(VENV)/bin
sources := nasengine spaces strategies estimators tests examples benchmarks

.DEFAULT_GOAL := help
.PHONY: help run test check format clean

help:
	@echo 'make run     search examples/light_sdi.toml and print how the result compares'
	@echo 'make test    run the tests and the examples in the documentation'
	@echo 'make check   formatting, lint, types, who may import whom'
	@echo 'make format  put the formatting and what lint can fix in order'
	@echo 'make clean   remove the environment, caches and build leftovers (never runs/)'

run: $(VENV)/.installed-all
	$(bin)/nasengine run $(SPEC)

test: $(VENV)/.installed-dev
	$(bin)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(bin)/ruff format --check $(wildcard $(sources))
	$(bin)/ruff check $(wildcard $(sources))
	$(bin)/mypy
	PYTHONPATH=. $(bin)/lint-imports

format: $(VENV)/.installed-dev
	$(bin)/ruff format $(wildcard $(sources))
	$(bin)/ruff check --fix $(wildcard $(sources))

$(VENV)/.installed-%: pyproject.toml
	test -x $(bin)/python || $(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
