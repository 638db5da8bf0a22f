# `make demo` and `make test` do all of their own set-up, once: a virtual environment in .venv with pinned versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The server and the client of the Triton tests, without what they ask for: NumPy 1, and an older protobuf than installed.
TRITON := nvidia-pytriton tritonclient python-rapidjson
# Three workers on two cores: many tests wait for a camera, a broker or a process. Each begins with a share of its own,
# so that tests of one file share what they set up, and takes over from others when it is done.
PYTEST := $(BIN)/python -m pytest -n 3 --dist worksteal
INSTALLED := $(VENV)/installed
# Tests start hundreds of processes. Where Python may not keep bytecode, each of them compiles what it imports.
export PYTHONDONTWRITEBYTECODE :=

# Seconds of `make fuzz` for each reader.
SECONDS ?= 20
# Minutes and seed of `make soak`. OUT=FILE keeps the results, and adds to what is there.
MINUTES ?= 5
SEED ?= 1

.PHONY: demo test test-long test-all quick check fuzz soak lock locked ends aarch64 aarch64-wheels audit format docs release clean

demo: $(INSTALLED)  ## the whole path on sample parts
	$(BIN)/edgead demo

test: $(INSTALLED)  ## every test but the long ones
	$(PYTEST) -m "not long"

test-long: $(INSTALLED)  ## the long ones: two nodes, the release, every extra alone, no network, 64-bit Arm, JetPack, GPU scripts, pages that train, large networks in lower precisions
	$(PYTEST) -m long

test-all: test test-long

quick: $(INSTALLED)  ## the tests that take no longer than a few seconds each
	$(PYTEST) -m "not slow and not long"

check: $(INSTALLED)  ## lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fuzz: $(INSTALLED)  ## every reader of files, guided by coverage: make fuzz SECONDS=600
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[fuzz]'
	$(BIN)/python tests/fuzz/campaign.py --seconds $(SECONDS)

soak: $(INSTALLED)  ## the line among faults from a seed: make soak MINUTES=30 SEED=1 OUT=FILE
	$(BIN)/python benchmarks/soak/soak.py --minutes $(MINUTES) --seed $(SEED) $(if $(OUT),--out $(OUT))

lock: $(INSTALLED)  ## write requirements.lock again: after a change of setup.py or constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python .ci/lock.py

locked:  ## install into .venv only files with the hashes of requirements.lock; CPython 3.11.5 to 3.13, Linux, x86-64
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[cpu,train,benchmark,ray,dev]'
	@touch $(INSTALLED)

ends: $(INSTALLED)  ## the lowest and the newest versions that setup.py allows, each in an environment of its own
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python .ci/ends.py

aarch64: $(INSTALLED)  ## bundles of every method on emulated 64-bit Arm machines; needs qemu-user-static
	$(BIN)/python tests/aarch64/every_method.py --out benchmarks/results/aarch64.json

aarch64-wheels: $(INSTALLED)  ## every package of every extra has a wheel for JetPack 6 and 7, or is the system's
	$(BIN)/python tests/aarch64/arm_wheels.py

audit: $(INSTALLED)  ## known vulnerabilities of what is installed; asks the package index
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	@$(BIN)/pip-audit --local --skip-editable --strict \
	  || { echo "If it says 'not found on PyPI': a mirror answers for pypi.org and does not know vulnerabilities"; exit 1; }

docs: $(INSTALLED)  ## the documentation site: build/site/index.html
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[docs]'
	$(BIN)/python docs/build_site.py

release: $(INSTALLED)  ## what a release consists of, built and checked in dist/; nothing is uploaded
	$(BIN)/python .ci/release.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "edgead needs Python 3.10 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv is missing; on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "installing what edgead needs into $(VENV) (once; a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools wheel
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[cpu,train,benchmark,ray,dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt $(TRITON) \
	  || echo "without a Triton server: its tests will skip"
	@touch $(INSTALLED)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
