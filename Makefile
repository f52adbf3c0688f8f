# Every target sets up .venv itself. PYTHON picks the interpreter that makes it (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready

# LOCKED=1 installs exactly what deploy/requirements/dev.txt lists, by hash.
PIP := $(BIN)/python -m pip install

# Most end-to-end tests wait for daemons, so a few processes of them share two cores well. A file stays in one process,
# for its fixtures, and the long files come first. The other tests wait for nothing: one process for each core.
WAITING := $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder
COMPUTING := $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: help demo test test-unit test-daemons test-long lint format proto docs bench bench-compare mutation validate deployment locks sbom audit clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    a whole federation on this machine: coordinator, workers, ten clients, real images (a minute or two, after the installation)"
	@echo "make test    lint, then every test (what CI runs)"
	@echo "make test-unit  tests without daemons: unit, contract, simulation (two to three minutes on two cores)"
	@echo "make test-daemons  tests with real processes: end-to-end, hostile, GPU (skipped without one)"
	@echo "make test-long  what takes long by nature: a fuzzer's hour, every check taken out once, new examples of property tests"
	@echo "make lint    ruff, mypy --strict, import rules, generated code is current"
	@echo "make format  let ruff rewrite what it can"
	@echo "make proto   regenerate the protobuf modules"
	@echo "make docs    write docs/metrics.md, configuration.md, exit-codes.md and the lowest versions from the code"
	@echo "make bench   round engine benchmarks against the wire floor of this machine"
	@echo "make bench-compare REV=...  this tree against another revision, in turn: ratios of seconds and processor seconds"
	@echo "make mutation  take the checks of secure aggregation out one by one; every time a test has to fail (an hour)"
	@echo "make validate  deploy/ through the linters and parsers of the tools that read it (fetches them; a minute)"
	@echo "make deployment  image, composition and system services in clean Debian roots (root on Debian; ten minutes)"
	@echo "make locks   lock what this .venv has, by hash, into deploy/requirements (after the tests passed in it)"
	@echo "make sbom    bill of materials of this .venv, CycloneDX, into build/sbom.json"
	@echo "make audit   look for published vulnerabilities of what is locked (needs an index that has advisories)"
	@echo "make clean   remove .venv, caches and runs/"

# What a demo needs. pip shows what it downloads: PyTorch is large, and silence would look like a fault.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say which one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PIP) --quiet --upgrade 'pip>=25.1'
ifdef LOCKED
	$(PIP) --quiet --require-hashes --requirement deploy/requirements/dev.txt
	$(PIP) --quiet --no-deps --no-build-isolation --editable .
else
	$(PIP) --editable '.[report]'
endif
	@touch $@

# What the tests and linters need beside.
$(READY): $(INSTALLED)
ifndef LOCKED
	$(PIP) --quiet --editable '.[all]' --group dev
endif
	@touch $@

demo: $(INSTALLED)
	$(BIN)/ssd demo

test: lint test-unit test-daemons

test-unit: $(READY)
	$(COMPUTING) tests/unit tests/contract tests/simulation

test-daemons: $(READY)
	$(WAITING) tests/e2e tests/hostile tests/gpu

test-long: $(READY) mutation
	$(BIN)/python tests/hostile/wire/fuzz.py --inputs 1000000
	SSD_HYPOTHESIS=explore $(COMPUTING) tests/unit tests/contract
	SSD_SIMULATION_EXAMPLES=2000 $(BIN)/python -m pytest -q tests/simulation/federation/test_random_lists.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PYTHON=$(abspath $(BIN)/python) proto/generate.sh --check

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(READY)
	PYTHON=$(abspath $(BIN)/python) proto/generate.sh

docs: $(READY)
	PYTHONPATH=.:proto $(BIN)/python docs/tools/metrics_page.py > docs/metrics.md.new
	mv docs/metrics.md.new docs/metrics.md
	PYTHONPATH=.:proto $(BIN)/python docs/tools/configuration_page.py > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md
	PYTHONPATH=.:proto $(BIN)/python docs/tools/exit_codes_page.py > docs/exit-codes.md.new
	mv docs/exit-codes.md.new docs/exit-codes.md
	$(BIN)/python docs/tools/lowest_versions.py > deploy/requirements/lowest.txt.new
	mv deploy/requirements/lowest.txt.new deploy/requirements/lowest.txt

bench: $(READY)
	$(BIN)/python tests/benchmarks/bench_rounds.py
	$(BIN)/python tests/benchmarks/bench_rounds.py --workers 1 --hosted 100 --parameters 1100000

# REV=<revision> REPEAT=5 WORK="training startup events rounds hosting"
bench-compare: $(READY)
	$(BIN)/python tests/benchmarks/revisions/compare.py $(REV) $(if $(REPEAT),--repeat $(REPEAT)) $(if $(WORK),--work $(WORK))

mutation: $(READY)
	PYTHONPATH=.:proto:tests/support $(BIN)/python tests/mutation/mutate_checks.py

validate: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" tests/deployment/validate.sh

deployment: $(READY)
	$(BIN)/python tests/deployment/image_in_clean_root.py
	$(BIN)/python tests/deployment/services_in_clean_root.py

SUPPLY := build/supply/bin

$(SUPPLY)/python: deploy/requirements/supply.txt
	$(PYTHON) -m venv build/supply
	$(SUPPLY)/python -m pip install --quiet --require-hashes --requirement deploy/requirements/supply.txt
	@touch $@

locks: $(READY) $(SUPPLY)/python
	PATH=$(abspath $(SUPPLY)):$$PATH $(BIN)/python docs/tools/locked_versions.py

sbom: $(READY) $(SUPPLY)/python
	$(SUPPLY)/cyclonedx-py environment --pyproject pyproject.toml --output-file build/sbom.json $(BIN)/python

audit: $(SUPPLY)/python
	$(SUPPLY)/pip-audit --strict --disable-pip --require-hashes --requirement deploy/requirements/dev.txt

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
