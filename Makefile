# Five verbs: demo, test, check, bench, image. Each makes what it needs first.
PERRY = .venv/bin/perry
PYTHON = .venv/bin/python
export TESTCONTAINERS_RYUK_DISABLED = true

.PHONY: help demo test check format bench image lock venv engine clean

help:
	@echo 'make demo    a workspace with sample sessions, shown and changing live'
	@echo 'make test    every test, against a real Docker engine'
	@echo 'make check   ruff, mypy and import-linter'
	@echo 'make bench   the table of measurements'
	@echo 'make image   the images of workspaces, the bundle and the agent daemon, from this checkout'

demo: engine
	@sh scripts/demo.sh

test: engine
	@$(PYTHON) -m pytest $(ARGS)

check: venv
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

format: venv
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

bench: engine
	@$(PYTHON) -m tests.bench $(ARGS)

image: engine
	@$(PERRY) image build

# Renews the locks; needs uv.
lock:
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --upgrade pyproject.toml requirements/dev.in -o requirements/dev.txt
	@uv pip compile --quiet --python-version 3.13 --python-platform x86_64-manylinux_2_28 \
	  --generate-hashes --no-header --no-annotate --upgrade \
	  container/worker-requirements.in -o container/worker-requirements.txt
	@uv pip compile --quiet --python-version 3.13 --python-platform x86_64-manylinux_2_28 \
	  --generate-hashes --no-header --no-annotate --upgrade \
	  container/agent-requirements.in -o container/agent-requirements.txt

venv:
	@sh scripts/venv.sh

engine: venv
	@sh scripts/engine.sh

clean:
	@rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
