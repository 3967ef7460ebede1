# Every target sets up what it needs first: `make serve` and `make test` are all that a fresh clone asks for.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO_URL ?= http://127.0.0.1:$(or $(REPPOSE_HTTP__PORT),8000)

DATA ?= ../data

.DEFAULT_GOAL := help
.PHONY: help serve demo test benchmarks tools synth soak guard lint proto settings metrics requirements secrets docker docker-test clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(VENV)/.installed-serve  ## Install and start the service: HTTP on 8000, gRPC on 50051
	exec $(BIN)/reppose-serve serve

demo: $(VENV)/.installed-demo  ## Post a photograph to the running service and draw the pose: demo.png
	$(BIN)/reppose-serve demo --url $(DEMO_URL) --out demo.png

test: $(VENV)/.installed-dev  ## Install everything and run all tests
	$(BIN)/python -m pytest $(TESTS)

tools: $(VENV)/.installed-tools  ## Install other people's programs that judge what is shipped (tests/ops)

soak: $(VENV)/.installed-dev $(VENV)/.installed-tools  ## Ask everything of a service for MINUTES (10) by k6; fails on errors and leaks
	$(BIN)/python -m tests.ops.soak --minutes $(or $(MINUTES),10)

synth: $(VENV)/.installed-synth  ## Install what `reppose-train synth` and its tests need, on Debian what draws as well
	@ldconfig -p | grep -q libEGL.so.1 || apt-get install -qq --yes libegl1 libgl1-mesa-dri libgles2 \
		|| echo 'synth: nothing to draw with; tests that do are skipped' >&2

guard: $(VENV)/.installed-dev  ## Fail if an install pulled in CUDA or what drags it in
	@if $(PIP) list --format=freeze | grep -iE '^(nvidia|triton|torchvision|torchaudio|timm)'; \
	then echo 'guard: the packages above must not be installed' >&2; exit 1; fi
	@$(PIP) check

lint: $(VENV)/.installed-dev  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

proto: $(VENV)/.installed-dev  ## Generate service/pb from proto/
	$(BIN)/python -m grpc_tools.protoc -Iservice/pb=proto --python_out=. --pyi_out=. --grpc_python_out=. \
		proto/reppose/v1/pose.proto

settings: $(VENV)/.installed-dev  ## Write what every setting means: docs/settings.md
	$(BIN)/reppose-serve config --docs > docs/settings.md.new && mv docs/settings.md.new docs/settings.md

metrics: $(VENV)/.installed-dev  ## Write what every series of the metrics means: docs/metrics.md
	$(BIN)/python -m service.series > docs/metrics.md.new && mv docs/metrics.md.new docs/metrics.md

requirements: $(VENV)/.installed-dev  ## Pin what the images install: docker/requirements.txt
	$(BIN)/python docker/pin.py > docker/requirements.txt.new && mv docker/requirements.txt.new docker/requirements.txt

benchmarks: $(VENV)/.installed-dev  ## Measure the models of bodies and hands on DATA, beside mediapipe where PEER is a Python that has it
	$(BIN)/reppose-train benchmarks --data $(DATA) $(if $(PEER),--peer $(PEER)) --out docs/benchmarks.md
	$(BIN)/reppose-train benchmarks --family hand --data $(DATA) $(if $(PEER),--peer $(PEER)) --out docs/benchmarks-hand.md

secrets:  ## Write random secrets for docker-compose.yml: docker/secrets
	$(PYTHON) docker/make_secrets.py

docker:  ## Build the image of the service: reppose:0.1.0
	docker build -f docker/service.Dockerfile -t reppose:0.1.0 .

docker-test: $(VENV)/.installed-dev  ## Build the images, bring everything up in containers, and test it there
	REPPOSE_DOCKER_TESTS=1 $(BIN)/python -m pytest -m docker --timeout=1800 tests/docker

clean:  ## Remove the virtual environment and build leftovers
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "RepPose needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-serve: EXTRAS :=
$(VENV)/.installed-demo: EXTRAS := [demo]
$(VENV)/.installed-dev: EXTRAS := [dev]
$(VENV)/.installed-synth: EXTRAS := [dev,synth]
$(VENV)/.installed-%: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.$(EXTRAS)'
	@touch $@

# One by one where they cannot be had together: a test without its program is skipped, and says so.
TOOLS_PIP := $(VENV)/tools/bin/python -m pip --disable-pip-version-check install --quiet --no-compile
$(VENV)/.installed-tools: $(VENV)/.created tests/ops/requirements.txt
	$(PYTHON) -m venv $(VENV)/tools
	$(TOOLS_PIP) --requirement tests/ops/requirements.txt || sed '/^#/d' tests/ops/requirements.txt \
		| while read -r each; do $(TOOLS_PIP) "$$each" || echo "tools: there is no $$each" >&2; done
	@touch $@
