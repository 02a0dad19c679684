# make demo and make test set up everything they need; `uv` is used where it is installed, plain pip otherwise.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
EXTRAS ?= dev

.PHONY: help install demo test check clean

help:
	@echo "make demo    checkpoint -> ONNX -> parity -> benchmark -> predictions -> service, on this machine"
	@echo "make test    every check and test"
	@echo "make check   format, lint and types only"

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

demo: install
	$(BIN)/python examples/digits/demo.py

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -n logical --dist worksteal

clean:
	rm -rf $(VENV) demo build dist
