# Each target sets up what it needs. PYTHON picks the interpreter for a new .venv (3.11 to 3.13).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# The two FAISS wheels exclude each other: the GPU one only where an NVIDIA driver answers.
FAISS  := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup demo test lint bench wheel-check clean
.DEFAULT_GOAL := help

help:           ## say what there is
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: .*## /\t/' | expand -t 16

setup: $(READY) ## create .venv; again when pyproject.toml changes

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "fc7 needs Python 3.11 to 3.13; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --editable '.[$(FAISS),dev]'
	@touch $@

demo: setup     ## run the main job on the built-in data set; writes runs/demo/report.html
	$(BIN)/fc7 demo

# The kernels are tested twice: on torch's path, and on Triton's in its interpreter. A file's tests
# share what is slow to make, so they stay in one process.
SHARED := --numprocesses auto --maxprocesses 8 --dist loadfile

test: setup     ## pass the tests; TESTS='...' adds arguments for pytest
	$(BIN)/python -m pytest $(SHARED) $(TESTS)
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(SHARED) tests/kernels

# fc7.engine lives in engine/, and so on: links put the folders where their names say.
.typecheck/fc7: pyproject.toml
	rm -rf .typecheck && mkdir -p .typecheck/fc7
	ln -s ../../engine/api/__init__.py ../../engine/api/py.typed .typecheck/fc7/
	ln -s ../../engine ../../kernels ../../indexing ../../bench .typecheck/fc7/

lint: setup .typecheck/fc7 ## ruff, mypy --strict and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	MYPYPATH=.typecheck $(BIN)/mypy --cache-dir .mypy_cache -p fc7
	PYTHONPATH=.typecheck $(BIN)/lint-imports

bench: setup    ## measure; BENCH='...' adds arguments, such as --images FOLDER
	$(BIN)/python -m fc7.bench $(BENCH)

wheel-check: setup ## build the wheel and prove it in an environment of its own
	rm -rf build dist .wheel-check
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv .wheel-check
	.wheel-check/bin/python -m pip --disable-pip-version-check install --quiet \
	  "$$(ls dist/fc7-*.whl)[cpu]" mypy import-linter pytest
	.wheel-check/bin/fc7 demo --rows 64 --out .wheel-check/demo
	.wheel-check/bin/mypy -p fc7
	.wheel-check/bin/lint-imports
	rm -rf .wheel-check build

clean:          ## remove everything that can be made again, runs/ excepted
	rm -rf $(VENV) .typecheck .wheel-check build dist *.egg-info .mypy_cache .ruff_cache
