# Every target sets itself up: a virtual environment in .venv, installed once and again only when its inputs change.
#
#   make tour    the whole atlas on digits, one report       make test    the tests
#   make check   every check that a change must pass         make help    all targets

VENV ?= .venv
PYTHON ?= python3
SEED ?= 0
OUT ?= tour

PY := $(VENV)/bin/python
USE := $(VENV)/.installed-use
EXPLORE := $(VENV)/.installed-explore
DEV := $(VENV)/.installed-dev
# Packages that carry pretrained generators. Their files are read, never their code: what they depend on is not needed.
ZOO := gan-face-generate==1.1.1 random-face==2021.7.21.1
BENCH := $(VENV)/.installed-bench

.PHONY: help setup tour explore test test-slow test-browser test-ray check format bench bench-full profile bench-tour bench-calibration bench-balance-start bench-renormalisation bench-variance-loss bench-maps bench-map-studies bench-mobile-stylegan bench-pythae bench-range bench-support bench-planted bench-kl bench-sparsity bench-noise-settled bench-pruning bench-scale docs test-docs test-tutorials notebooks docs-outputs audit fuzz torture licences test-lowest test-newest test-ends zoo clean
.DELETE_ON_ERROR:

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "latlas needs Python 3.11 or newer; name one with make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch is constrained in every install: unconstrained, pip may take a build with gigabytes of CUDA packages.
$(USE): pyproject.toml constraints.txt | $(PY)
	@echo 'Installing latlas into $(VENV): once, some minutes, and pip says nothing meanwhile.'
	$(PY) -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(EXPLORE): pyproject.toml constraints.txt | $(PY)
	@echo 'Installing latlas and its explorer into $(VENV): once, some minutes, and pip says nothing meanwhile.'
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[avatars,explore]'
	@touch $@ $(USE)

$(DEV): pyproject.toml constraints.txt | $(PY)
	@echo 'Installing latlas with all its extras into $(VENV): once, some minutes and 2.4 GB, and pip says nothing meanwhile.'
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(PY) -m pip install --quiet --no-deps $(ZOO)
	@$(PY) tools/check_environment.py
	@touch $@ $(USE) $(EXPLORE)

# Peers to measure against; no part of development.
$(BENCH): $(DEV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	@touch $@

setup: $(DEV) ## Install everything that development needs

tour: $(USE) ## Run the whole atlas on digits; the report lies in tour/ (SEED=1, OUT=folder)
	$(VENV)/bin/latlas tour --out $(OUT) --seed $(SEED) --replace

explore: $(EXPLORE) ## Open the explorer: a local page to look at models on
	$(VENV)/bin/latlas explore

test: $(DEV) ## Run the tests; those of the explorer in a browser where there is Chromium
	$(PY) -m pytest

test-slow: $(DEV) ## Run the slow studies as well
	$(PY) -m pytest -m slow

test-ray: $(DEV) ## Run the tests of the engine ray, on a cluster of this machine alone
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev,ray]'
	$(PY) -m pytest -m ray

test-browser: $(DEV) ## Use the explorer as a person would, in Chromium; screenshots under build/screenshots
	LATLAS_SCREENSHOTS=$${LATLAS_SCREENSHOTS:-build/screenshots} $(PY) -m pytest tests/browser -m browser

check: $(DEV) ## Format, lint, types, architecture, tests
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest

format: $(DEV) ## Format the code and sort its imports
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(BENCH) ## Speed, memory and growth beside peers and bounds, quick: benchmarks/results/bench.json
	$(PY) benchmarks/bench.py

bench-full: $(BENCH) ## The same with more images and rounds
	$(PY) benchmarks/bench.py --full

profile: $(DEV) ## What a training spends its time on: benchmarks/profiles/
	$(PY) benchmarks/profiling.py

bench-tour: $(DEV) ## The tour with seeds 0 and 1, held against its bounds: benchmarks/results/tour.json
	$(PY) benchmarks/tour.py

bench-calibration: $(DEV) ## Balance rules and samplers over two data sets and three seeds: benchmarks/results/calibration.json
	$(PY) benchmarks/calibration.py --budget quick

bench-balance-start: $(DEV) ## The running error's start, and rules without one: benchmarks/results/balance_start.json
	$(PY) benchmarks/balance_start.py

bench-renormalisation: $(DEV) ## What renormalising does to a second stage's codes: benchmarks/results/renormalisation.json
	$(PY) benchmarks/renormalisation.py

bench-variance-loss: $(DEV) ## Variance loss against error over 20 trainings: benchmarks/results/variance_loss.json
	$(PY) benchmarks/variance_loss.py

bench-maps: $(BENCH) ## Linear maps: exactness, speed, three types of models on avatars: benchmarks/results/maps.json
	$(PY) benchmarks/vector_maps.py
	$(PY) benchmarks/maps.py

bench-map-studies: $(DEV) ## How few images fix a map, and what moves with it: benchmarks/results/map_studies.json
	$(PY) benchmarks/map_studies.py

bench-mobile-stylegan: $(DEV) ## MobileStyleGAN beside OpenVINO (OPENVINO=a Python with openvino): benchmarks/results/mobile_stylegan.json
	$(PY) benchmarks/mobile_stylegan.py --openvino $(OPENVINO)

bench-pythae: $(BENCH) ## latlas beside pythae in one run: benchmarks/results/against_pythae.json
	$(PY) benchmarks/against_pythae.py

bench-range: $(DEV) ## Inversion, range test and the maps of StyleGANs: benchmarks/results/range.json
	$(PY) benchmarks/ranges.py

bench-support: $(DEV) ## Order of variables, Support Sets, planted gaps: benchmarks/results/support.json
	$(PY) benchmarks/support.py

bench-planted: $(DEV) ## Models trained without headwear, a colour, a rotation: benchmarks/results/planted.json
	$(PY) benchmarks/planted.py

bench-kl: $(DEV) ## KL curve, trajectories, clouds with and without sampling: benchmarks/results/kl.json
	$(PY) benchmarks/kl.py

bench-sparsity: $(DEV) ## Collapsed variables, noise injection, the variance law: benchmarks/results/sparsity.json
	$(PY) benchmarks/sparsity.py --budget paper

bench-noise-settled: $(DEV) ## Noise that stays after the collapse: how late the variable comes back: benchmarks/results/noise_settled.json
	$(PY) benchmarks/noise_settled.py

bench-pruning: $(DEV) ## What pruning costs on the networks of bench-sparsity: benchmarks/results/pruning.json
	$(PY) benchmarks/pruning.py

bench-scale: $(DEV) ## What one core does, and two processes against one: benchmarks/results/scale.json
	$(PY) benchmarks/scale.py

docs: $(DEV) ## Build the documentation site into site/, warnings as errors
	$(PY) tools/make_reference.py
	$(PY) benchmarks/reproductions.py
	$(VENV)/bin/zensical build --strict --clean

test-docs: $(DEV) ## Run every code block of the README and the pages, and check the site
	$(PY) -m pytest tests/docs -m "slow or not slow"

test-tutorials: $(DEV) ## Run every code block of the README, the start and the tutorials
	$(PY) -m pytest tests/docs/test_code_blocks.py -m slow -k "README or start or tutorials"

notebooks: $(DEV) ## Run the tutorials as notebooks, kept with what they showed: notebooks/
	$(PY) tools/make_notebooks.py

docs-outputs: $(DEV) ## Run the pages, and write what their commands print below them
	$(PY) tools/run_pages.py

audit: $(DEV) ## Check the lock: pinned, nothing refused; with a network, known vulnerabilities too
	$(PY) -m pip install --quiet --constraint constraints.txt pip-audit
	$(PY) tools/audit.py --advisories

licences: $(DEV) ## List the licences of what latlas builds on: docs/licences.md
	$(PY) tools/licences.py

# The oldest versions that pyproject.toml allows, and the newest that the index serves, each in an environment of its own. TESTS="…" runs
# some tests, TORCH=2.9.0 another torch than the locked one (which then is the CUDA build, unless pip is told where CPU builds are); one before
# 2.9 is too old for the extra onnx: TORCH=2.6.0 ENDS_EXTRAS=avatars,data,explore,features,hub,test. The oldest versions are there for
# Python 3.11 alone, and have to be compiled for a later one.
TESTS ?=
OLDEST_PYTHON ?= $(or $(shell command -v python3.11),$(PYTHON))
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)
ENDS_EXTRAS := avatars,data,explore,features,hub,onnx,test
ENDS_PYTEST := -W ignore::DeprecationWarning -m "not slow and not ray and not browser" --ignore tests/architecture --ignore tests/docs --ignore tests/browser

test-lowest: | $(PY) ## Run the tests with the oldest dependencies that latlas says it works with
	@$(OLDEST_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "The oldest versions need Python 3.11; name one with make OLDEST_PYTHON=..."; exit 1; }
	$(OLDEST_PYTHON) -m venv $(VENV)-lowest
	$(PY) tools/lower_bounds.py --torch $(TORCH) > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --constraint $(VENV)-lowest/constraints.txt --editable '.[$(ENDS_EXTRAS)]'
	$(VENV)-lowest/bin/python -m pip install --quiet --no-deps $(ZOO)
	$(VENV)-lowest/bin/python -m pytest -o addopts="--import-mode=importlib" $(ENDS_PYTEST) $(TESTS)

test-newest: | $(PY) ## Run the tests with the newest dependencies that the package index serves (torch as locked)
	$(PYTHON) -m venv $(VENV)-newest
	echo 'torch==$(TORCH)' > $(VENV)-newest/constraints.txt
	$(VENV)-newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --constraint $(VENV)-newest/constraints.txt --editable '.[$(ENDS_EXTRAS)]'
	$(VENV)-newest/bin/python -m pip install --quiet --no-deps $(ZOO)
	$(VENV)-newest/bin/python -m pytest $(ENDS_PYTEST) $(TESTS)

test-ends: | $(PY) ## Try every dependency at both ends of its versions, with a few tests: minutes
	tests="$$($(PY) tools/ends.py)" && $(MAKE) test-newest TESTS="$$tests"
	@if $(OLDEST_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
	  tests="$$($(PY) tools/ends.py)" && $(MAKE) test-lowest TESTS="$$tests"; \
	else echo "No Python 3.11 here: the oldest versions were not tried."; fi

torture: $(DEV) ## Kills, full disks, two writers, changed bytes: benchmarks/results/torture.json
	$(PY) benchmarks/torture.py

fuzz: $(DEV) ## Fuzz every loader, guided by coverage; what is found is kept under tests/hostile/findings
	$(PY) -m pip install --quiet 'atheris>=3.0'
	$(PY) tools/fuzz.py --engine atheris --runs 20000 --go-on --findings tests/hostile/findings --record benchmarks/results/fuzz.json
	$(PY) benchmarks/fuzzing.py

zoo: $(DEV) ## Make the models that latlas carries again (those under runs/ are not trained again)
	$(PY) tools/make_zoo.py

clean: ## Remove the environment
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest
