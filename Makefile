# Everything runs in one virtual environment that `make` builds on first use, with ROS 2 Jazzy as
# wheels, or Kilted: make test ROS_DISTRO=kilted.
ifneq ($(origin ROS_DISTRO),command line)
ROS_DISTRO := jazzy
endif
# A sourced ROS sets the same variable; its packages would come before those of the wheels.
ifdef AMENT_PREFIX_PATH
$(info This runs on the wheels of ROS 2 $(ROS_DISTRO), without the sourced ROS.)
unexport AMENT_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH RMW_IMPLEMENTATION
endif

VENV ?= .venv$(filter-out -jazzy,-$(ROS_DISTRO))
PYTHON ?= $(or $(wildcard $(VENV)/bin/python),python3)
REQUIREMENTS := requirements-dev.txt requirements-$(ROS_DISTRO).txt
INSTALLED := $(VENV)/.requirements-installed
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: demo test test-numpy1 soak results drive2 docs check link clean

demo: link
	$(VENV)/bin/demo

# Two tests at a time, but those of a file after each other, for they share its fixtures.
PYTEST := -m pytest -n 2 --dist loadfile

# A fleet has workers of its own, and these nodes need both cores to keep their times: nothing is
# tested beside them.
ALONE := test/evaluation/fleet test/benchmarks/test_soak.py test/ros/test_node_and_evaluate.py \
	test/ros/tools/test_demo.py
test: link
	$(VENV)/bin/python -m pytest $(ALONE)
	$(VENV)/bin/python $(PYTEST) $(ALONE:%=--ignore=%)

# With what Ubuntu 24.04 has from apt, NumPy 1.26 and OpenCV 4.6, in front of the newer ones; up to
# its Python 3.12.
NUMPY1 := $(abspath $(VENV))/numpy1
test-numpy1: link
	$(PIP) install -q --no-deps --only-binary :all: --upgrade --target $(NUMPY1) \
		numpy==1.26.4 opencv-python-headless==4.6.0.66
	PYTHONPATH=$(NUMPY1) $(VENV)/bin/python $(PYTEST)

# The node for MINUTES beside everything that goes wrong on a robot; out/soak/soak.png shows it.
MINUTES ?= 20
soak: link
	$(VENV)/bin/python -m benchmarks.soak --minutes $(MINUTES)

# Remake the published tables into docs/results, or those of ONLY="latency_cap node".
# RGBD=<folder of real RGB-D frames> adds those that need it, BASELINE=<TFLite network> its rows.
results: link
	$(VENV)/bin/python -m benchmarks.results $(ONLY)

# A drive on which things happen: a bag, its scene and events.yaml, into out/drive2.
drive2: link
	$(VENV)/bin/python -m scenes.second_drive --out out/drive2

# The documentation, into out/docs/index.html; every warning is an error.
docs: link
	$(VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going docs out/docs

# Says in one line why the environment cannot be built here, or that it holds something else.
check:
	@$(PYTHON) check_environment.py '$(VENV)' '$(ROS_DISTRO)'

$(INSTALLED): $(wildcard requirements*.txt) constraints.txt | check
	$(PYTHON) -m venv $(VENV)
	touch $(VENV)/COLCON_IGNORE
	@$(PIP) download -q --no-deps --retries 1 --dest $(VENV) ros-$(ROS_DISTRO)-rclpy \
		2> $(VENV)/pip.log || { echo 'pip finds no ros-$(ROS_DISTRO)-rclpy: is the package' \
		'index reachable?  See $(VENV)/pip.log' >&2; exit 1; }
	$(PIP) install -q --constraint constraints.txt torch setuptools
	$(PIP) install -q --constraint constraints.txt $(REQUIREMENTS:%=--requirement %)
	touch $@

# Editable, so that the commands run the code of this clone; two seconds, so every time.
link: $(INSTALLED)
	$(PIP) install -q --no-deps --no-build-isolation --use-pep517 --editable .

clean:
	rm -rf $(VENV) out build install log marigold_ros.egg-info
