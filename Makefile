# demo · play · test · lint · notebooks · bench · docs: each makes its environment in .venv, with uv if it is installed, else with venv and pip.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo play test lint notebooks bench docs clean

demo: $(VENV)/.installed
	$(BIN)/understudy demo

# Serves the run of `make demo`, and opens the page. PLAY names other runs, or more options of `understudy serve`.
PLAY ?= demo
play: $(VENV)/.installed-ui
	$(BIN)/understudy serve $(PLAY) --open

# Two processes of one thread each: the tests are many and small. tests/conftest.py puts the longest files first.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu" --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

# Runs the notebooks and checks their exercises; N="1 2" only some. SAVE=1 writes the outputs into them.
notebooks: $(VENV)/.installed-dev
	$(BIN)/python docs/run_notebooks.py $(N) $(if $(SAVE),--save)

bench: $(VENV)/.installed
	$(BIN)/understudy bench
	$(BIN)/python benchmarks/throughput.py

# The site, in build/site. It needs no network; `python3 -m http.server -d build/site` shows it. tests/test_site.py checks it in a browser.
docs: $(VENV)/.installed-docs
	$(BIN)/python docs/build_site.py

$(BIN)/python:
ifdef UV
	uv venv --python $(PYTHON) $(VENV)
else
	$(PYTHON) -m venv $(VENV)
endif

# requirements.lock pins everything; the editable install then finds nothing left to fetch.
$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
ifdef UV
	uv pip install --python $(BIN)/python --constraints requirements.lock --editable .
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable .
endif
	touch $@

# The extras `ui` and `dev`, each installed over the rest.
$(VENV)/.installed-%: $(VENV)/.installed
ifdef UV
	uv pip install --python $(BIN)/python --constraints requirements.lock --editable ".[$*]"
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable ".[$*]"
endif
	touch $@

clean:
	rm -rf $(VENV) build src/*.egg-info
