# `make test` needs Python and make, and sets up everything else. CONTRIBUTING.md describes each target.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.lamella-installed
# `SYSTEM=no` installs no Debian package, and skips the tests that need a missing one.
SYSTEM ?= yes
export SYSTEM
# pip and the tests must not depend on an environment that the caller's shell has activated. Byte code is written, or each
# command of the tests compiles its modules anew.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

# Debian packages that `make test` installs, each with its job.
define PACKAGES
python3 a base interpreter that is Debian's own
python3-venv environments of Debian's interpreter
git projects with files that git ignores
gcc extension modules and shared libraries
libc6-dev headers for gcc
binutils readelf and objcopy, to check what is in an ELF file
openssl keys and certificates, made by another implementation
unzip reads exported zip archives
zstd reads layers with another implementation
ca-certificates downloads over HTTPS
docker-registry the registry that tests push to and pull from
skopeo copies images, to check that others can read ours
umoci unpacks images, to check that others can read ours
podman runs images and Kubernetes pods
catatonit the init process of podman's pods
runc starts the containers of podman and umoci
docker.io Docker's engine, for docker load and docker run
containerd the engine below Docker and Kubernetes
mmdebstrap makes a minimal Debian without Python
qemu-user-static runs environments of another architecture
squashfs-tools makes and reads squashfs exports
uidmap user namespaces with more than one user
xfsprogs a file system with reflinks
e2fsprogs a small file system that runs full
bindfs a file system that imposes modes
iproute2 networks with addresses of their own
zsh activation and completion in another shell
fish activation and completion in another shell
tcsh activation in csh
man-db reads the manual pages
default-jre-headless runs Spark
procps lists processes
slurmctld runs SLURM jobs
slurmd the nodes of SLURM
slurm-client submits SLURM jobs
munge the credentials of SLURM
chromium-headless-shell opens the page of a comparison
endef
system: export PACKAGES := $(PACKAGES)

# Tests make their files in a folder of their own: a mount that a killed run left in pytest's usual folder would break the
# next run's cleanup. It is open to all, since some tests run as other users.
define PYTEST
	@scratch=$$(mktemp -d) && chmod 755 $$scratch && \
	trap 'rm -rf --one-file-system $$scratch' EXIT && trap 'exit 130' INT && trap 'exit 143' TERM && \
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH TMPDIR=$$scratch MAKEFLAGS= $(VENV)/bin/python -m
endef
# One worker more than processors: many tests wait for other programs.
PARALLEL := -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --dist worksteal

# `make test` checks types beside the tests. Debian's packages come first: some bring what pip needs, such as certificates.
ifeq ($(MAKECMDGOALS),test)
MAKEFLAGS += --jobs=2
endif

.PHONY: help test lint types tests unit fuzz check stress coverage bench bench-compare comparison-page demo docs lock node-pyz node-image install system clean

help:
	@echo "make test      everything: ruff, mypy and all tests; SYSTEM=no installs no Debian packages"
	@echo "make unit      the quick tests: no root, no network, no engines, under a minute"
	@echo "make fuzz      the property tests of tests/fuzz with 20,000 examples each; EXAMPLES=1000 runs fewer"
	@echo "make check     ruff and mypy alone"
	@echo "make stress    300 kills of each verb, and 50 processes that each pull and free 100 times"
	@echo "make coverage  all tests, with a report of the lines and branches that they run"
	@echo "make demo      push, pull, mount and upgrade a real environment; shows what moves and how long it takes"
	@echo "make bench     the budgets as ratios; PREFIX=/path/to/environment for another than the demo's"
	@echo "make bench-compare BASE=main   this version and another one in turns; or BASE=.bench/FILE"
	@echo "make node-pyz  dist/lamella-node.pyz: the verbs of a node in one file, for any Python from 3.10 on"
	@echo "make node-image  dist/node-image: the image for nodes, an OCI layout; MACHINES=x86_64 makes one platform"
	@echo "make comparison-page NAME=venv RESULT=FILE   a result of lamella compare into docs/comparison.md"
	@echo "make docs      docs/reference/cli.md from the command's own parsers"
	@echo "make lock      requirements-dev.lock from pyproject.toml"
	@echo "make clean     remove what these targets made"
	@echo "TESTS=tests/cli runs a part of test, unit or coverage."

test: types tests

types: lint
	$(VENV)/bin/mypy

tests: lint | system
	$(PYTEST) pytest $(PARALLEL) $(TESTS)

unit: $(STAMP)
	@echo "Running the tests that are not slow, drive no engine and need no root. make test runs all."
	$(PYTEST) pytest -q $(PARALLEL) -m "not slow and not engine and not root" $(TESTS)

fuzz: $(STAMP)
	$(PYTEST) pytest -q $(PARALLEL) --hypothesis-profile=fuzz tests/fuzz

check: types

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

stress: $(STAMP)
	$(PYTEST) pytest -s --stress tests/integration/test_store_processes.py -k "killed or many_processes"

coverage: $(STAMP)
	$(VENV)/bin/coverage erase
	$(PYTEST) coverage run -m pytest $(PARALLEL) $(TESTS)
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report

demo: $(STAMP)
	PYTHONPATH=tests $(VENV)/bin/python -m demo

bench: $(STAMP)
	PYTHONPATH=tests $(VENV)/bin/python -m bench $(if $(PREFIX),--prefix $(PREFIX))

# Two versions of the code in turns, or this one and a result that was kept: BASE=COMMIT or BASE=.bench/FILE.
bench-compare: $(STAMP)
	PYTHONPATH=tests $(VENV)/bin/python -m bench.compare --base $(BASE) $(if $(PREFIX),--prefix $(PREFIX)) $(if $(ROUNDS),--rounds $(ROUNDS))

# One part of the code by itself: bench-scan, bench-push, bench-pull, bench-mount, bench-transport, bench-follow;
# bench-pack beside conda-pack.
bench-%: $(STAMP)
	PYTHONPATH=tests $(VENV)/bin/python tests/bench/$*.py $(PREFIX)

# A result of `lamella compare` into docs/comparison.md: its tables, pictures and raw data.
comparison-page: $(STAMP)
	PYTHONPATH=tests $(VENV)/bin/python -m bench.documented $(NAME) $(RESULT)

docs: $(STAMP)
	$(VENV)/bin/python -m lamella.cli.reference > docs/reference/cli.md.new && mv docs/reference/cli.md.new docs/reference/cli.md

node-pyz: $(STAMP)
	PYTHONPATH=cli $(VENV)/bin/python -m node_part.zipapp dist/lamella-node.pyz

# For both platforms on one machine: Debian's packages are unpacked, and nothing of the other platform runs.
MACHINES ?= x86_64 aarch64
node-image: $(STAMP)
	PYTHONPATH=cli $(VENV)/bin/python -m node_part.image dist/node-image $(MACHINES:%=--machine %) $(if $(SIGN),--sign $(SIGN))

# Versions for any platform and any Python from the oldest on: what CI and a new contributor get is what was tested.
lock: $(STAMP)
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-emit-index-url --no-annotate \
		--extra test pyproject.toml --output-file requirements-dev.lock

install: $(STAMP)

# Targets that drive no engine install no Debian package either.
QUIET := help lint types unit fuzz check comparison-page docs lock node-pyz clean
$(STAMP): pyproject.toml requirements-dev.lock | $(if $(filter-out $(QUIET),$(MAKECMDGOALS)),system)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Lamella needs Python 3.10 or newer: set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint requirements-dev.lock --editable '.[test]'
	@touch $@

# As root on Debian, installs what is missing; elsewhere, says what to install. If apt-get refuses the whole list, installs
# one package at a time: a distribution without one of them still gets the rest.
system:
	@if [ "$(SYSTEM)" = no ]; then echo "SYSTEM=no: installing no Debian packages" >&2; exit 0; fi; \
	if ! command -v dpkg-query >/dev/null; then \
		echo "Not Debian: tests that need one of these programs are skipped if it is missing:" >&2; \
		printf '%s\n' "$$PACKAGES" | sed 's/^\([^ ]*\) /  \1: /' >&2; exit 0; \
	fi; \
	missing=$$(printf '%s\n' "$$PACKAGES" | while read -r package job; do \
		case "$$(dpkg-query --show --showformat='$${Status}' "$$package" 2>/dev/null)" in \
			*" installed") ;; \
			*) echo "$$package: $$job" ;; \
		esac; \
	done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	names=$$(printf '%s\n' "$$missing" | sed 's/:.*//' | tr '\n' ' '); \
	if [ "$$(id -u)" != 0 ]; then \
		echo "Missing Debian packages; tests that need them are skipped:" >&2; \
	else \
		echo "Installing Debian packages (make test SYSTEM=no installs none):" >&2; \
	fi; \
	printf '%s\n' "$$missing" | sed 's/^/  /' >&2; \
	if [ "$$(id -u)" != 0 ]; then echo "To install them: sudo apt-get install $$names" >&2; exit 0; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	install="apt-get install -qq --yes --no-install-recommends -o Dpkg::Use-Pty=0"; \
	{ apt-get update -qq; $$install $$names || for package in $$names; do $$install "$$package" || true; done; } \
		</dev/null >/dev/null

clean:
	rm -rf $(VENV) demo dist build .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
