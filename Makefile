# Everything installs itself into .venv; only Python 3.11, 3.12 or 3.13 and make are needed.
PYTHON ?= python3
PROFILE ?= quick
RUNNER ?= local
VENV := .venv
RUN := $(VENV)/bin/python
unexport PYTHONDONTWRITEBYTECODE # with it every process would compile its libraries anew, 6 s each, for nothing is compiled ahead
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install reproduce plan smoke tables test lint bench scaling docs clean

help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14
	@echo "PROFILE=smoke|quick|reference|paper chooses how much 'make reproduce' runs (default: quick); 'make tables PROFILE=reference' shows the run that ships"
	@echo "RUNNER=local|ray|slurm chooses the machines that 'make reproduce' runs on (default: this one)"
	@echo "ONLY=table3 (or figure7, or several: table3,figure7) makes 'make reproduce' (and plan) run what that needs and no more"

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "misure needs Python 3.11, 3.12 or 3.13 (Hydra 1.3 fails at start on 3.14): make PYTHON=<path to it>" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --no-compile --editable '.[all]'
	@touch $@

install: $(INSTALLED) ## Make .venv and install the project with its extras

reproduce: $(INSTALLED) ## Train, explain, write tables and figures; goes on where it was interrupted
	$(RUN) scripts/reproduce.py profile=$(PROFILE) runner=$(RUNNER) $(if $(ONLY),'only=[$(ONLY)]')

plan: $(INSTALLED) ## Print what 'make reproduce' would do, download and write, and how long it takes
	$(RUN) scripts/reproduce.py profile=$(PROFILE) $(if $(ONLY),'only=[$(ONLY)]') plan_only=true

smoke: $(INSTALLED) ## The same on tiny subsets in two processes, into outputs/smoke
	$(RUN) scripts/reproduce.py profile=smoke outputs=outputs/smoke runner.workers=2

tables: $(INSTALLED) ## Remake tables and figures from the records alone; PROFILE=reference: from those that ship
	$(RUN) scripts/tables.py profile=$(PROFILE)

test: $(INSTALLED) ## Run the tests
	$(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: $(INSTALLED) ## Check formatting, style and types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

bench: $(INSTALLED) ## Time every explainer against its literal version and other packages
	$(RUN) scripts/bench.py profile=$(PROFILE)

scaling: $(INSTALLED) ## Time and memory against batch size, image size, masks and images
	$(RUN) scripts/scaling.py profile=$(PROFILE)

docs: $(INSTALLED) ## Write the reference of all public names, with the pages beside the code, to outputs/docs
	$(RUN) tests/api_docs.py outputs/docs

clean: ## Remove the environment and caches; data and outputs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
