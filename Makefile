# Two commands: `make demo` and `make test`. Both set everything up in .venv first.
PYTHON ?= python3
VENV := .venv
CARMASK := $(VENV)/bin/carmask
DATA := data/studio
RUN := runs/demo
# The demo takes a few minutes on two cores: 12 cars from 16 sides, `fast` at half its input size.
CARS := 12

.PHONY: demo test lint docs lesson setup clean openapi lock dist sbom wheels

demo: setup
	rm -rf $(RUN) out/demo
	$(CARMASK) studio $(DATA) --cars $(CARS) --height-px 427 --width-px 640
	$(CARMASK) check $(DATA) --sheet out/demo/check.png
	$(CARMASK) train $(DATA) --config configs/demo.yaml --name demo
	$(CARMASK) evaluate $(DATA) --model $(RUN) --out out/demo/report
	$(CARMASK) predict $(DATA)/train out/demo/compare --model $(RUN) --kind compare
	@echo
	@echo "Open the report:  $(CURDIR)/out/demo/report/report.html"
	@echo "and the pictures: $(CURDIR)/out/demo/compare"

test: setup lint
	# Several processes share the CPUs, so their OpenMP threads must not spin while they wait. The tests start more than a
	# hundred Python processes; compiled files are kept, so that each does not compile the package again.
	# The ten slowest tests are listed, and the skipped ones with their reasons. A process of tests that dies ends the run
	# and its test is named: with another in its place, pytest-xdist can wait forever for tests that nobody has.
	env -u PYTHONDONTWRITEBYTECODE OMP_WAIT_POLICY=passive $(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --durations=10 -rs

lint: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# The site, in out/site; ends at the first broken link.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict
	@echo "Open $(CURDIR)/out/site/index.html"

# The lesson's notebook with its pictures, from docs/lesson/unet.py, on the cars that `make demo` renders.
lesson: $(VENV)/installed-docs
	test -d $(DATA) || $(CARMASK) studio $(DATA) --cars $(CARS) --height-px 427 --width-px 640
	$(VENV)/bin/python docs/lesson/execute.py $(LESSON)

setup: $(VENV)/installed

$(VENV)/installed-docs: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# An existing .venv is kept, and with it the build of torch that you chose (docs/start/kaggle.md).
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "carmask needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,pretrained,serve,video,cluster,dev]'
	touch $@

openapi: setup
	$(VENV)/bin/python -m carmask.serving.openapi docs/openapi.json

# The tools of a release, apart from what the tests run with.
RELEASE := $(VENV)/release
$(RELEASE)/installed: pyproject.toml
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet cyclonedx-bom pip-tools
	touch $@

# All that carmask[serve] installs, at the versions of constraints.txt, with the hashes of the files. With Python 3.11.
lock: $(RELEASE)/installed
	$(RELEASE)/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header --no-emit-options \
	    --extra serve --constraint constraints.txt --output-file deploy/requirements-serve.lock pyproject.toml
	sed -i -e '/-c constraints.txt$$/d' -e '1i # `make lock` writes this: all that carmask[serve] installs with Python 3.11, with the hashes of the files.' \
	    deploy/requirements-serve.lock

# The wheel and the source distribution, checked, and the wheel installed with the locked packages. CI does it too.
LOCKED := $(VENV)/locked
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
dist: setup
	rm -rf dist $(LOCKED)
	$(VENV)/bin/python -m hatchling build -d dist
	$(PIP) install --quiet --no-compile --upgrade --target $(VENV)/twine twine
	PYTHONPATH=$(VENV)/twine $(VENV)/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv --without-pip $(LOCKED)
	$(PIP) --python $(LOCKED) install --quiet --no-compile --require-hashes --requirement deploy/requirements-serve.lock
	$(PIP) --python $(LOCKED) install --quiet --no-compile --no-deps --no-index dist/*.whl
	$(LOCKED)/bin/carmask --help > /dev/null
	$(LOCKED)/bin/carmask predict --model fast --overwrite src/carmask/serving/self_test.jpg out/self_test.png

# Whether pip finds wheels of all that carmask installs, for each Python that pyproject.toml names.
PYTHONS := 3.11 3.12 3.13 3.14
EXTRAS := serve,train,video,cluster
wheels: $(RELEASE)/installed
	for version in $(PYTHONS); do \
	    echo "Python $$version"; \
	    $(RELEASE)/bin/python -m pip install --quiet --dry-run --ignore-installed --only-binary :all: \
	        --python-version $$version --target $(RELEASE)/none -c constraints.txt '.[$(EXTRAS)]' || exit 1; \
	done

# What the locked installation consists of, as CycloneDX: out/carmask.cdx.json.
sbom: dist $(RELEASE)/installed
	mkdir -p out
	$(RELEASE)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o out/carmask.cdx.json $(LOCKED)

clean:
	rm -rf $(VENV) runs out data .cache
