# Everything runs in a virtual environment, which the first target that needs it makes.
#   make stack DATA=path/to/XACLE_dataset RECIPE=features/recipes/mini.toml

DATA   ?= data/demo
RECIPE ?= features/recipes/mini.toml
STORE  ?= features/store
JOBS   ?= -1
PYTHON ?= python3
VENV   ?= .venv
# A pip constraints file, for instance tests/oldest.txt.
CONSTRAINTS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

.DEFAULT_GOAL := help
.PHONY: help features stack test lint bench notebooks clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 12
	@echo "Variables: DATA=$(DATA) RECIPE=$(RECIPE) STORE=$(STORE) JOBS=$(JOBS)"

features: $(VENV)/core $(filter data/demo,$(patsubst %/,%,$(DATA)))  ## encode DATA with the encoders of RECIPE into STORE
	@$(BIN)/xacle-stack features --data "$(DATA)" --recipe "$(RECIPE)" --store "$(STORE)" --jobs $(JOBS)

stack: features  ## fit the stack on DATA and print the results table
	@$(BIN)/xacle-stack stack --data "$(DATA)" --recipe "$(RECIPE)" --store "$(STORE)" --jobs $(JOBS)

test: $(VENV)/dev  ## run the tests
	$(BIN)/python -m pytest

lint: $(VENV)/dev  ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/dev  ## run the benchmarks and write benchmarks/results/
	for benchmark in benchmarks/bench_*.py; do $(BIN)/python $$benchmark || exit 1; done

notebooks: $(VENV)/notebooks features  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

clean:  ## delete the environments, the demo data and the cache; keep runs/
	rm -rf .venv .venv-oldest data/demo features/store

data/demo: | $(VENV)/core
	@echo "Making the demo data set in $@"
	@$(BIN)/xacle-stack demo $@ --jobs $(JOBS)

$(VENV)/core: pyproject.toml
	@echo "Installing xacle_stack into $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/dev $(VENV)/notebooks: $(VENV)/core
	@echo "Installing what $(@F) needs into $(VENV)"
	@$(PIP) --editable '.[$(@F)]'
	@touch $@
