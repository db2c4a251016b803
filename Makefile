# make report: set up, run the main experiment (minutes), leave reports/01_proactive.html.   make test: set up, test everything.
PYTHON ?= python3
VENV   ?= .venv
PBB     = $(VENV)/bin/pbb
STAMP   = $(VENV)/.installed
NOTEBOOK ?= notebooks/01_proactive.ipynb
PROFILE  ?= quick

.DEFAULT_GOAL := help
.PHONY: help report test lint clean

help: ## show these lines
	@grep -hE '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 10

report: $(STAMP) ## run the main experiment (PROFILE=smoke|quick|full) and render its report; what is done is not repeated
	@$(PBB) run $(NOTEBOOK) -p profile $(PROFILE)

test: $(STAMP) ## run the whole test suite
	@$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(STAMP) ## check style, spelling and types
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/codespell && $(VENV)/bin/mypy

clean: ## remove the environment and rendered reports; runs/ holds results and stays
	rm -rf $(VENV) reports build *.egg-info .pytest_cache .ruff_cache .mypy_cache

# Made anew when the pins or the dependencies change; otherwise this costs nothing. A half-made environment has no stamp.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "this project needs Python 3.11 or newer, and $(PYTHON) is %d.%d; say which: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "setting up $(VENV): about 2 minutes on the first call, 1.8 GB with the CPU build of torch"
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,trl]'
	@touch $@
