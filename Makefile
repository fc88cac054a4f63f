# From an empty machine with Python >= 3.11 to the page and the tests. Every target makes .venv in the checkout first;
# it installs again only when requirements.txt or pyproject.toml changed.
#   make app [PORT=7860]   the page            make test [ARGS=...]   all tests
#   make lint              ruff                make types             mypy

.DEFAULT_GOAL := app
.PHONY: app test lint types programs

# The newest Python that can make a virtual environment; name another with PYTHON=...
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
PORT ?= $(or $(MSMEDCAP_PORT),$(GRADIO_SERVER_PORT),7860)
VENV := .venv/bin/python
PIP := $(VENV) -m pip --disable-pip-version-check install

app: .venv/.installed
	@exec $(VENV) app.py --port $(PORT)

# In the files' own order: xdist would leave those with few and long tests to the end, for one process alone.
test: .venv/.installed-dev programs
	@OMP_NUM_THREADS=1 exec $(VENV) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/.installed-dev
	@$(VENV) -m ruff check .

types: .venv/.installed-dev
	@$(VENV) -m mypy

# The browser tests read the page in Chromium, the COCO caption metrics run on Java; where these cannot be installed their tests
# skip and say why.
programs:
	@missing=; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing=chromium; \
	command -v java >/dev/null || missing="$$missing default-jre-headless"; \
	if [ -n "$$missing" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing $$missing for the tests"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } \
		>/dev/null 2>&1 || echo "$$missing could not be installed; the tests that need them will skip" >&2; \
	fi

$(VENV):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed (Debian: apt install python3-venv); install it or run make with PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) does not run or is older than Python 3.11; run make with PYTHON=/path/to/python3" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv

.venv/.installed: requirements.txt | $(VENV)
	@echo "Installing into .venv (PyTorch included: some minutes the first time)"
	@$(VENV) -m pip --version >/dev/null 2>&1 || $(VENV) -m ensurepip
	@$(PIP) --quiet --requirement requirements.txt
	@touch $@

.venv/.installed-dev: pyproject.toml .venv/.installed
	@$(PIP) --quiet --editable '.[dev]'
	@touch $@
