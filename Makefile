# `make quickstart`: a relit picture; then data, training, table and report from nothing. `make test`, `make test-all`, `make lint`,
# `make docs`: for changes. `make weights`: the weights in the package anew.
# Each builds .venv when it is missing or its requirements moved, and repeats nothing that is done.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m ltnet_pl
INSTALLED := $(VENV)/.installed

.PHONY: help quickstart clean-quickstart weights test test-all lint docs
.DELETE_ON_ERROR:
# One step at a time: trainings side by side would only take each other's cores.
.NOTPARALLEL:

help:
	@echo "make quickstart        relight a picture, render scenes, train LTNet and the baselines, print the table and the report's path"
	@echo "make clean-quickstart  forget the quickstart's data and runs"
	@echo "make weights           train the weights in the package anew, in runs/weights: some hours"
	@echo "make test              tests without the slow ones"
	@echo "make test-all          every test"
	@echo "make lint              ruff and mypy"
	@echo "make docs              the documentation as a site, in site/"

# ---- the environment

NEEDS_PYTHON = import sys; sys.version_info >= (3, 11) or sys.exit( \
	"ltnet_pl needs Python 3.11 or later, but $(1) is %d.%d; $(2)" % sys.version_info[:2])

# torch comes first and alone: pip then never weighs its large builds against each other while it resolves the rest.
$(INSTALLED): setup.cfg pyproject.toml requirements/constraints.txt
	@if test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		$(BIN)/python -c '$(call NEEDS_PYTHON,the one in $(VENV),remove $(VENV) and run make PYTHON=python3.11 ...)'; \
	else \
		command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not found; run make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }; \
		$(PYTHON) -c '$(call NEEDS_PYTHON,$(PYTHON),run make PYTHON=python3.11 ...)' && $(PYTHON) -m venv $(VENV); \
	fi
	$(BIN)/python -m pip install -c requirements/constraints.txt torch
	$(BIN)/python -m pip install -c requirements/constraints.txt -e '.[render,notebooks,photo,export,demo,docs,dev]'
	@touch $@

# ---- checks

# a file of tests at a time on each core; its fixtures are then made once
SIDE_BY_SIDE := -n auto --dist loadfile

test: $(INSTALLED)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-all: $(INSTALLED)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m ''

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the variable turns off what the theme prints about other programs
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# ---- quickstart
#
# A chain of steps, each of which leaves a stamp when it is done, so a second call does nothing and an interrupted one goes on where
# it stopped: the renderer skips finished scenes and a training resumes from its last checkpoint. The steps stand in order-only
# prerequisites because the same seed gives the same data: a later stamp of an earlier step is no reason to train again.

SCENES := 24
SIZE := 96
SEED := 7
DATA := data/quickstart
RUNS := runs/quickstart
CONFIG := experiments/quickstart.yaml
# Rows of the table: those that are trained, and those that have nothing to train.
TRAINED := ltnet color_affine
UNTRAINED := copy_input
ROWS := $(TRAINED) $(UNTRAINED)
# A row is the quickstart's config, with a baseline's file on top unless it is LTNet itself, in a run folder of its own.
config = --config experiments/base.yaml --config $(CONFIG) $(if $(filter-out ltnet,$(1)),--config experiments/baselines/$(1).yaml) --trainer.default_root_dir $(RUNS)/$(1)

done = @mkdir -p $(@D) && touch $@

$(DATA)/.rendered: | $(INSTALLED)
	$(RUN) render $(DATA) --scenes $(SCENES) --size $(SIZE) --seed $(SEED)
	$(done)

$(TRAINED:%=$(RUNS)/%/.fitted): $(RUNS)/%/.fitted: | $(DATA)/.rendered
	$(RUN) fit $(call config,$*) --ckpt_path last
	$(done)

$(TRAINED:%=$(RUNS)/%/.tested): $(RUNS)/%/.tested: | $(RUNS)/%/.fitted
	$(RUN) test $(call config,$*) --ckpt_path $(RUNS)/$*/checkpoints/best.ckpt
	$(done)

# LTNet's second row: the wanted light is given instead of read off the guide.
$(RUNS)/ltnet/.tested-label: | $(RUNS)/ltnet/.fitted
	$(RUN) test $(call config,ltnet) --model.net.init_args.light label --ckpt_path $(RUNS)/ltnet/checkpoints/best.ckpt
	$(done)

$(UNTRAINED:%=$(RUNS)/%/.tested): $(RUNS)/%/.tested: | $(DATA)/.rendered
	$(RUN) test $(call config,$*)
	$(done)

$(RUNS)/report.html: | $(ROWS:%=$(RUNS)/%/.tested) $(RUNS)/ltnet/.tested-label
	$(RUN) report $(ROWS:%=$(RUNS)/%) --output $@ --title "Quickstart: $(SCENES) rendered scenes, $(SIZE) px"

# First of all a picture, by the weights in the package: it takes seconds, all that follows takes minutes. A file by itself, not a
# stamp: relight writes none unless it is whole.
EXAMPLE := ltnet_pl/demo/examples/things
LIT := $(RUNS)/things_from_east.jpg

$(LIT): | $(INSTALLED)
	@mkdir -p $(@D)
	$(RUN) relight $(EXAMPLE).jpg --depth $(EXAMPLE)_depth.png --direction E --temperature 3000 --out $@
	@echo "A relit picture: $@, made of $(EXAMPLE).jpg. Now the whole way, from rendered scenes to a trained network."

quickstart: $(LIT) $(RUNS)/report.html
	@echo "Quickstart done; the relit picture is $(LIT), the report $(RUNS)/report.html (make clean-quickstart forgets them)."

clean-quickstart:
	rm -rf $(DATA) $(RUNS)

# ---- the weights in the package
#
# The recipe of docs/model_card.md. The result does not replace the file in the package, which is somebody's decision.

SCENERY := data/weights
TRAINING := runs/weights

$(SCENERY)/.rendered: | $(INSTALLED)
	$(RUN) render $(SCENERY) --scenes 320 --size 128 --seed 101
	$(done)

$(TRAINING)/.fitted: | $(SCENERY)/.rendered
	$(RUN) fit --config experiments/base.yaml --config experiments/weights.yaml --ckpt_path last
	$(done)

$(TRAINING)/ltnet.safetensors: | $(TRAINING)/.fitted
	$(RUN) export $(TRAINING)/checkpoints/last.ckpt $@ --to safetensors --half

weights: $(TRAINING)/ltnet.safetensors
	@echo "The weights are $<; relight takes them by --weights $<."
