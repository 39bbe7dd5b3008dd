# make quickstart   installs everything into .venv (once) and plays a first game
# make smollm2      fetches a real language model of 135 million parameters, and plays a game with it
# make test         linter, types, and every test that needs neither root nor Debian packages
# make test-system  the rest: a Slurm and several hosts, jobs killed over and over, the paper, pages in a browser
# make test-slow    jobs killed 200 times over
# make lint format  linter and types alone; the formatter

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SMOLLM2 := build/smollm2

# Files of tests that run at the same time: most of a test is waiting for processes, to start or to end.
TEST_JOBS ?= 3
PYTEST = $(BIN)/python -m pytest -q -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: quickstart smollm2 test test-system test-slow lint format install clean

quickstart: install
	$(BIN)/mpirun -n 3 $(BIN)/pbeauty run configs/quickstart.yaml

smollm2: install $(SMOLLM2)
	$(BIN)/mpirun -n 2 $(BIN)/pbeauty run configs/smollm2.yaml

$(SMOLLM2): configs/fetch_smollm2.py
	@echo "making a checkpoint of SmolLM2-135M-Instruct in $@: once, half a minute"
	@$(BIN)/pip install -q --no-deps accelerate==1.15.0 gguf==0.19.0
	@$(BIN)/python configs/fetch_smollm2.py $@

test: lint
	$(PYTEST) tests/engine tests/jobs tests/unit

# A real Slurm and real hosts over ssh, made for the occasion, twenty kills, every experiment of the paper on a small
# scale, pages in a real browser: needs root and the packages that .ci/run installs.
test-system: TEST_JOBS = 2
test-system: install
	$(PYTEST) tests/system

# The same with ten times the kills: a quarter of an hour.
test-slow: install
	PBEAUTY_KILLS=200 $(BIN)/python -m pytest -q tests/system/test_kill.py

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

install: $(STAMP)

$(STAMP): requirements.lock setup.py .ci/install
	@.ci/install $(PYTHON) $(VENV)
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build *.egg-info src/*.egg-info
