# Every target works from a fresh clone. A stamp file in .venv says what is installed, so a second call is quick.
# Installs are editable (see CONTRIBUTING.md) except for `make types`, which needs the opposite.

PYTHON      ?= python3
TORCH_INDEX ?=
PYTEST_ARGS ?=
BENCH_ARGS  ?=
PEERS       ?=

VENV  := .venv
TYPES := .venv-types
BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip install --disable-pip-version-check --quiet \
         $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt
META  := pyproject.toml constraints.txt

# Real data: the folder the user names, or a shared one beside the checkout.
ifndef FEWSHOT_DATA
ifneq ($(wildcard ../shared/data),)
FEWSHOT_DATA := $(abspath ../shared/data)
endif
endif
ifdef FEWSHOT_DATA
export FEWSHOT_DATA
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint types docs bench clean

help:  ## list the targets
	@echo 'Usage: make [TARGET] [PYTHON=python3.12] [TORCH_INDEX=url] [PYTEST_ARGS=...] [BENCH_ARGS=...] [PEERS=...]'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## install what a user needs and run a small demonstration
	$(BIN)/fewshot demo

test: $(VENV)/.dev  ## run the tests (PYTEST_ARGS passes options on)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Not the checkout but an installed copy, seen from an empty folder: mypy passes over applications/ and datasets/
# otherwise. The copy's environment borrows the libraries of .venv (a .pth line), so nothing is installed twice.
# build/ goes first, or pip would pack modules that have been deleted since.
types: $(VENV)/.dev $(TYPES)/.ready  ## mypy over a non-editable install
	rm -rf build
	$(BIN)/python -m pip --python $(TYPES)/bin/python install --disable-pip-version-check --quiet \
	    --no-deps --no-build-isolation --force-reinstall .
	cd $(TYPES)/empty && ../bin/python -m mypy --config-file ../../pyproject.toml --cache-dir ../cache -p fewshot

docs: $(VENV)/.docs  ## build the documentation, warnings as errors
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html
	@echo 'The pages are in docs/_build/html/index.html'

# With PEERS the comparison alone runs: the other scripts know nothing of other libraries.
bench: $(VENV)/.dev  ## run the scripts in tests/benchmarks (BENCH_ARGS), or compare speed: PEERS=environment
ifneq ($(strip $(PEERS)),)
	$(BIN)/python tests/benchmarks/speed.py --peers "$(PEERS)" --write $(BENCH_ARGS)
else
	@found=0; for script in tests/benchmarks/*.py; do \
	    case "$$script" in *'*'*|*/_*|*/conftest.py) continue;; esac; \
	    found=1; echo "== $$script"; $(BIN)/python "$$script" $(BENCH_ARGS) || exit 1; \
	done; if [ $$found = 0 ]; then echo 'tests/benchmarks holds no script yet'; fi
endif

clean:  ## remove the environments and everything built
	rm -rf $(VENV) $(TYPES) build dist *.egg-info docs/_build docs/auto_gallery docs/generated docs/reference
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find fewshot applications datasets tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'fewshot needs Python 3.11 or newer: make PYTHON=python3.11 ...'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.venv $(META)
	$(PIP) -e '.[data,report,baselines]'
	@touch $@

# Includes what the demonstration needs, so its stamp is set too.
$(VENV)/.dev: $(VENV)/.venv $(META)
	$(PIP) -e '.[dev,data,report,baselines,rl,mujoco,sb3,tracking]'
	@touch $(VENV)/.demo $@

$(VENV)/.docs: $(VENV)/.venv $(META)
	$(PIP) -e '.[docs,data,report,baselines]'
	@touch $(VENV)/.demo $@

$(TYPES)/.ready: $(VENV)/.venv
	rm -rf $(TYPES)
	$(BIN)/python -m venv --without-pip $(TYPES)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	    "$$($(TYPES)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	mkdir -p $(TYPES)/empty
	@touch $@
