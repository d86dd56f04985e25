# What people call. `make help` lists it, and README.md says what each leaves behind.

SHELL := /bin/bash
.DEFAULT_GOAL := all
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTHON := $(BIN)/python

# What each needs of Debian or Ubuntu.
DEMO_PACKAGES := python3 python3-venv dbus systemd qemu-utils grub-rescue-pc
TEST_PACKAGES := $(DEMO_PACKAGES) python3-gi python3-dbus gir1.2-glib-2.0 \
	libglib2.0-bin libglib2.0-dev-bin nginx-light xfsprogs btrfs-progs \
	git xz-utils bzip2 procps mount fdisk \
	openssh-client openssh-server fish zsh man-db mandoc jq nodejs gcc libc6-dev pkg-config libglib2.0-dev \
	python3-build python3-setuptools python3-wheel pipx libvirt-clients

# What the packages are built with: Build-Depends of debian/control, and who checks them.
DEB_PACKAGES := dpkg-dev build-essential debhelper dh-python pybuild-plugin-pyproject python3-all \
	python3-setuptools python3-aiohttp python3-dbus-fast lintian git

.PHONY: all deb demo test lint tests bus-tests-again coverage format fuzz fuzz-bus soak contrib clean help
.PHONY: install-demo install-test

all: install-test ## install the service, its client and the tools of the tests into .venv
	@echo "$(BIN)/mvirt-zfs-dbus is the service, $(BIN)/mvirt-zfsctl its client."

install-demo:
	@tools/install-packages $(DEMO_PACKAGES)
	@tools/install-python fast,cli

install-test:
	@tools/install-packages $(TEST_PACKAGES)
	@tools/install-python fast,cli,test

demo: install-demo ## import, clone, snapshot and roll back a real disk image, on a private bus
	@$(PYTHON) demo/demo.py

# The coverage of every process of a test run lands here, those of the service included.
COVERAGE := COVERAGE_FILE=$(CURDIR)/build/coverage/data
# What the tests mount goes with them, however they end; without root they mount nothing.
ALONE := $(shell unshare --mount true 2>/dev/null && echo unshare --mount)
PYTEST := $(COVERAGE) $(ALONE) $(PYTHON) -m coverage run -m pytest
# Two processes, each test file in one of them: most tests wait for something half of the time.
BESIDE := --numprocesses=2 --dist=loadfile

test: install-test lint tests bus-tests-again coverage ## lint, all tests that need no ZFS, coverage

tests:
	@echo "== unit, contract and bus tests, on dbus-fast"
	@rm -rf build/coverage && mkdir -p build/coverage
	@$(PYTEST) $(BESIDE) --junitxml=build/junit-dbus-fast.xml

bus-tests-again:
	@echo "== bus tests again, on dbus-next: as on a machine that has no dbus-fast"
	@PYTHONPATH=tests/without_dbus_fast $(PYTEST) $(BESIDE) tests/bus --junitxml=build/junit-dbus-next.xml

coverage:
	@echo "== coverage of both runs; under 90 % is a failure"
	@$(COVERAGE) $(PYTHON) -m coverage combine --quiet
	@$(COVERAGE) $(PYTHON) -m coverage report --skip-covered --fail-under=90

deb: ## build the Debian packages into build/deb/, and let lintian look at them
	@tools/install-packages $(DEB_PACKAGES)
	@tools/build-deb --build=full

lint: install-test ## ruff and mypy --strict
	@echo "== ruff check, ruff format --check, mypy --strict"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install-test ## let ruff put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

FUZZ_SECONDS := 600

fuzz: ## look for faults in the reading of images, FUZZ_SECONDS=600 long
	@tools/install-packages $(DEMO_PACKAGES)
	@tools/install-python fast,fuzz
	@nice -n 10 $(PYTHON) tests/fuzz/run.py $(FUZZ_SECONDS)

FUZZ_CALLS := 100000
FUZZ_SERIES := 300

fuzz-bus: install-test ## call the service with whatever can be made up, FUZZ_CALLS=100000 times
	@MVIRT_FUZZ_CALLS=$(FUZZ_CALLS) MVIRT_FUZZ_EXAMPLES=$(FUZZ_SERIES) \
		nice -n 10 $(PYTHON) -m pytest -s tests/bus/fuzzing

SOAK_SECONDS := 3600

soak: install-test ## a mixed load on the service, SOAK_SECONDS=3600 long: does it grow?
	@SOAK_SECONDS=$(SOAK_SECONDS) nice -n 10 $(PYTHON) -m pytest -s tests/bus/soak

contrib: ## let apt see Debian's contrib, where python3-pyzfs is; for real ZFS pools only
	@tools/enable-contrib

clean: ## remove .venv, build/ and caches; Debian packages stay
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# make bench and make bench-machine: how fast it is.
-include bench/bench.mk

# make test-machine: the tests that boot a Debian with real ZFS.
-include tests/machine/machine.mk
