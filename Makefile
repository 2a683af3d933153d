# Everything runs in one virtual environment that `make` builds on first use.
VENV ?= .venv
PYTHON ?= python3
REQUIREMENTS := requirements.txt requirements-dev.txt constraints.txt
INSTALLED := $(VENV)/.requirements-installed
LINKED := marigold_ros.egg-info/PKG-INFO
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: demo test clean

demo: $(LINKED)
	$(VENV)/bin/demo

test: $(LINKED)
	$(VENV)/bin/python -m pytest

$(INSTALLED): $(REQUIREMENTS)
	$(PYTHON) -m venv $(VENV)
	touch $(VENV)/COLCON_IGNORE
	$(PIP) install -q --constraint constraints.txt torch setuptools
	$(PIP) install -q --constraint constraints.txt --requirement requirements-dev.txt
	touch $@

# Editable, so that the commands run the code of this clone.
$(LINKED): $(INSTALLED) setup.py setup.cfg
	$(PIP) install -q --no-deps --no-build-isolation --use-pep517 --editable .
	touch $@

clean:
	rm -rf $(VENV) out build install log marigold_ros.egg-info
