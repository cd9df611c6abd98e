# make quickstart   set up and run the main job
# make test         set up and run the tests
# make check        lint, types, doors between rooms, spelling, documentation
# make docs         the documentation, under build/site
# make bench-gpu    every benchmark on a CUDA device, beside its peers: DATA=ADDRESS
# make evidence     train, update, mix, certify and judge on CIFAR-10, then write docs/evidence.md: SCALE=small|medium|full DATA=ADDRESS
# make costs        time and memory of single parts, beside their floors and peers: DATA=ADDRESS
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

SCALE ?= small
DATA ?= torchvision:CIFAR10
JOBS ?= 2

.PHONY: quickstart test check docs bench-gpu costs evidence judges picture clean

quickstart: $(READY)
	$(BIN)/poise quickstart

test: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(MAKE) docs

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench-gpu: judges
	@$(BIN)/python -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "no CUDA device here")'
	$(BIN)/python -m benchmarks.run costs --data $(DATA)

costs: judges
	$(BIN)/python -m benchmarks.run costs --data $(DATA)

evidence: judges
	$(BIN)/python -m benchmarks.run evidence --scale $(SCALE) --data $(DATA) --jobs $(JOBS)

# torchattacks asks for old versions of what it hardly uses.
judges: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,judges]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'torchattacks>=3.5'

# The README's picture, from the newest quickstart; needs Chromium.
picture:
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=8000 --window-size=1000,1420 \
		--screenshot=docs/images/quickstart.png "file://$$(ls -td $(CURDIR)/runs/quickstart*/report.html | head -n 1)"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "poise needs Python 3.11 or newer; say e.g. make PYTHON=python3.12"; exit 2; }
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev,docs,export,lora,tune]'
	touch $@

clean:
	rm -rf $(VENV)
