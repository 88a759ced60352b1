# `make demo` and `make test` do everything on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Another torch, for example TORCH_SPEC="torch==2.11.0"; one that is already in .venv stays.
TORCH_SPEC ?= torch==2.13.0
# A video of your own for the demo: make demo CLIP=holiday.mp4
CLIP ?=
export HF_HUB_OFFLINE := 1

.PHONY: demo test lint docs clean

demo: $(INSTALLED)
	$(BIN)/dcvideogen demo $(if $(CLIP),"$(CLIP)") -o demo-output

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages of docs/ as a site; any web server shows it: .venv/bin/python -m http.server -d site
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# torch goes first and is then pinned, so that no other package pulls a different build in.
$(INSTALLED): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH_SPEC)"
	$(BIN)/python -c "import torch; print('torch==' + torch.__version__.split('+')[0])" > $(VENV)/torch-pin.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(VENV)/torch-pin.txt -e ".[dev]"
	touch $(INSTALLED)

clean:
	rm -rf demo-output site .pytest_cache .ruff_cache
