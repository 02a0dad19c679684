# make demo and make test set up everything they need; `uv` is used where it is installed, plain pip otherwise.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
EXTRAS ?= dev

# A real Triton for the tests of what `evovit package triton` writes: 55 MB, Linux x86-64 only.
TRITON := $(VENV)/triton

.PHONY: help install demo test check gpu-check clean

help:
	@echo "make install .venv with everything that was tried; about 7 GB"
	@echo "make demo    checkpoint -> ONNX -> parity -> benchmark -> predictions -> service, on this machine"
	@echo "make test    every check and test"
	@echo "make check   format, lint and types only"
	@echo "make gpu-check   every backend on this GPU against FP32, and how fast; needs no network"
	@echo "make clean   remove .venv and what was made"

install: $(VENV)/.installed

# The constraints file pins the versions that were tried.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
ifdef UV
	test -x $(BIN)/python || uv venv --python $(PYTHON) $(VENV)
	uv pip install --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'
else
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[$(EXTRAS)]'
endif
	@touch $@

# A GPU machine may have no network: what is installed there is used as it is.
gpu-check:
	$(if $(wildcard $(BIN)/evovit),$(BIN)/evovit,evovit) gpu-check

demo: install
	$(BIN)/python examples/digits/demo.py

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Without it (another platform, no network) its tests are skipped, and tried again next time; CI fails.
$(TRITON)/.installed: tests/serve/triton-requirements.txt | install
	@rm -rf $(TRITON)
ifdef UV
	@uv pip install --python $(BIN)/python --no-deps --only-binary :all: --target $(TRITON) -r $< && touch $@ || echo "no real Triton here: its tests are skipped"
else
	@$(BIN)/python -m pip install -q --no-deps --only-binary :all: --target $(TRITON) -r $< && touch $@ || echo "no real Triton here: its tests are skipped"
endif

test: check $(TRITON)/.installed
	$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

clean:
	rm -rf $(VENV) demo build dist
