PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRA  ?= dev
TORCH  ?=
DEVICE ?= cpu

.PHONY: help install run test test-slow test-slurm bench-quantizers bench-generators bench-students bench-matching lint options report constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  %-17s %s\n", $$1, $$2}'

install: $(STAMP) ## create .venv with the pinned dependencies (TORCH=cpu leaves CUDA out, 4 of 7 GB; EXTRA=gpu for faiss on a GPU)

# uv is several times faster than pip; pip does the same where uv cannot be installed. Both say
# what they download: it is much, and silence would look like a hang.
$(STAMP): pyproject.toml .ci/constraints.txt
	$(PYTHON) -c "import sys; assert (3, 11) <= sys.version_info < (3, 14), 'ddoq needs Python 3.11 to 3.13: make PYTHON=python3.11'"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q uv && $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python \
	  $(if $(TORCH),--torch-backend $(TORCH)) -e '.[$(EXTRA)]' -c .ci/constraints.txt \
	  $(if $(TORCH),,|| $(BIN)/python -m pip install -e '.[$(EXTRA)]' -c .ci/constraints.txt)
	touch $(STAMP)

run: install ## run the main job on scikit-learn's digits (ARGS="+experiment=fashion_mnist" for another)
	$(BIN)/python -m ddoq.run $(ARGS)

test: install ## run the test suite, one process per core
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadscope --no-loadscope-reorder -m "not slow and not gpu and not slurm"

test-slow: install ## run the long tests
	$(BIN)/python -m pytest -m slow

test-slurm: install ## run a sweep on a private SLURM, which is installed if need be (Debian, root)
	$(BIN)/python -m pytest -m slurm

bench-quantizers: install ## time the quantizers against scikit-learn, faiss and POT, 25 minutes (ARGS="sweep" for a section)
	$(BIN)/python tests/benchmarks/quantizers.py $(ARGS)

bench-generators: install ## time generation and encoding against diffusers' pipelines, 4 minutes (DEVICE=cuda for the full models)
	$(BIN)/python tests/benchmarks/generators.py $(DEVICE) $(ARGS)

bench-students: install ## time the training of students against ImageFolder and torchvision, 4 minutes (DEVICE=cuda for ResNet-18)
	$(BIN)/python tests/benchmarks/students.py $(DEVICE) $(ARGS)

bench-matching: install ## time a step of DM and DSA against the official loop, 2 minutes (PEER=FOLDER, a clone of VICO-UoE/DatasetCondensation)
	$(BIN)/python tests/benchmarks/matching.py --peer $(PEER) $(ARGS)

options: install ## write all options of components into the files of conf/
	$(BIN)/python -m ddoq.config.write

lint: install ## check style
	$(BIN)/ruff check ddoq hydra_plugins tests
	$(BIN)/ruff format --check ddoq hydra_plugins tests

report: install ## write the report of the default run again; what is in the store is not computed
	$(BIN)/python -m ddoq.run run.from=report $(ARGS)

constraints: install ## write the installed versions to .ci/constraints.txt
	(echo "# The exact versions that were tested (Python 3.11, Linux). Regenerate: make constraints"; \
	 $(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable) > .ci/constraints.txt

clean: ## remove the environment and caches; outputs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
