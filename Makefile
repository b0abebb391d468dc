# make demo: set everything up and run the main job.  make test: set everything up and run the tests.
# Another interpreter than python3: make demo PYTHON=python3.12
PYTHON ?= python3
VENV   := .venv
# What the product and its simulator need, and that with all that tests, checks and benchmarks do: twice as long to install.
STAMP  := $(VENV)/.installed
TOOLS  := $(VENV)/.installed-tools

.PHONY: demo test check bench bench-full wheel lock setup tools clean

demo: setup
	$(VENV)/bin/python run.py demo

test: tools
	$(VENV)/bin/python -m pytest -n 3 --dist loadfile

check: tools
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The short form takes under five minutes; its figures go to benchmarks/results.
bench: tools
	$(VENV)/bin/python benchmarks/fleet.py --whatsapp 60 --platform 20 --idle 15 --plain 2 --loop 20
	$(VENV)/bin/python benchmarks/heal.py --whatsapp 40 --times 4 --kills 2 --loop 20
	$(VENV)/bin/python benchmarks/throughput.py --whatsapp 20 --shard 10 --rounds 1 --seconds 2 --load-seconds 5
	$(VENV)/bin/python benchmarks/growth.py --rows 10000 100000 --devices 30 3000 --seconds 0.2
	$(VENV)/bin/python benchmarks/gateway.py --connections 8 --seconds 2 --long 5
	$(VENV)/bin/python benchmarks/soak.py --whatsapp 20 --minutes 0.5

# The full form takes about an hour and a half on 2 cores, and writes what docs/performance.md shows.
PUBLISHED := --to docs/performance
bench-full: tools
	$(VENV)/bin/python benchmarks/fleet.py --whatsapp 100 --platform 1000 --first-start 100 $(PUBLISHED)
	$(VENV)/bin/python benchmarks/fleet.py --whatsapp 1000 --platform 1000 --loop 250 $(PUBLISHED)
	$(VENV)/bin/python benchmarks/fleet.py --whatsapp 3000 --platform 1000 --loop 250 $(PUBLISHED)
	$(VENV)/bin/python benchmarks/heal.py --whatsapp 3000 --times 20 --kills 3 --loop 250 --await-plain $(PUBLISHED)
	$(VENV)/bin/python benchmarks/throughput.py --whatsapp 3000 --each 1 --shard 50 $(PUBLISHED)
	$(VENV)/bin/python benchmarks/gateway.py --long 120 $(PUBLISHED)
	$(VENV)/bin/python benchmarks/growth.py --rows 10000 1000000 10000000 --devices 30 300 3000 30000 $(PUBLISHED)
	$(VENV)/bin/python benchmarks/soak.py --minutes 30 $(PUBLISHED)
	$(VENV)/bin/python benchmarks/webhooks.py --minutes 60 $(PUBLISHED)
	$(VENV)/bin/python benchmarks/report.py

# dist/salamander-VERSION-py3-none-any.whl, with the command `salamander`.
wheel: tools
	$(VENV)/bin/python -m build --wheel

LOCK_OPTIONS := --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11

# Both locks, from pyproject.toml; with another pin there, this is what follows. Needs uv (docs.astral.sh/uv).
lock:
	uv pip compile $(LOCK_OPTIONS) --all-extras pyproject.toml -o requirements.lock
	uv pip compile $(LOCK_OPTIONS) --extra simulator --extra tracing --constraint requirements.lock pyproject.toml -o deploy/requirements.lock

setup: $(STAMP)

tools: $(TOOLS)

# A stamp is written last, so that an interrupted installation is taken up again.
$(STAMP): deploy/requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON). Install Python 3.11 or later, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Salamander needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot create virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing the pinned dependencies into $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/requirements.lock
	@touch $(STAMP)

$(TOOLS): $(STAMP) requirements.lock
	@echo "Installing the pinned tools of tests, checks and benchmarks into $(VENV) …"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $(TOOLS)

clean:
	rm -rf $(VENV) build dist salamander.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
