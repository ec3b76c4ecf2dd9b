# `make test` is all that a machine with Python and make needs; CONTRIBUTING.md says what each target does.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.lamella-installed
# What PIP and the tests run must not depend on what the caller's shell had activated.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONPATH PYTHONHOME

# Real registries, engines and mounts: what the tests drive. One Debian package name each.
ENGINES := docker-registry skopeo umoci podman catatonit runc docker.io containerd mmdebstrap squashfs-tools uidmap xfsprogs zsh
TOOLS := python3 python3-venv git gcc libc6-dev binutils openssl unzip zstd ca-certificates

.PHONY: help test check bench demo docs install system clean

help:
	@echo "make test    everything: ruff, mypy and the tests, in a virtual environment that it makes"
	@echo "make check   ruff and mypy alone"
	@echo "make demo    a real environment pushed, pulled, mounted, upgraded: what moves, and how long it takes"
	@echo "make bench   the budgets as ratios; PREFIX=/path/to/environment for another than the demo's"
	@echo "make docs    docs/reference/cli.md from the command's own parsers"
	@echo "make clean   remove what these targets made"

# In a folder of its own: a mount that a killed run left in pytest's usual one would fail this run's cleanup. Open to all:
# some tests are other users.
test: check
	@scratch=$$(mktemp -d) && chmod 755 $$scratch && { \
		PATH=$(CURDIR)/$(VENV)/bin:$$PATH TMPDIR=$$scratch $(VENV)/bin/python -m pytest -n auto --dist worksteal $(TESTS); code=$$?; \
		rm -rf --one-file-system $$scratch; exit $$code; }

check: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

demo: $(STAMP)
	PYTHONPATH=tests $(VENV)/bin/python -m demo

bench: $(STAMP)
	PYTHONPATH=tests $(VENV)/bin/python -m bench $(if $(PREFIX),--prefix $(PREFIX))

# One part of the code by itself: bench-scan, bench-push, bench-pull, bench-mount, bench-transport.
bench-%: $(STAMP)
	$(VENV)/bin/python tests/bench/$*.py

docs: $(STAMP)
	$(VENV)/bin/python -m lamella.cli.reference > docs/reference/cli.md.new && mv docs/reference/cli.md.new docs/reference/cli.md

install: $(STAMP)

$(STAMP): pyproject.toml | system
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Lamella needs Python 3.10 or newer: set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# Installs what is missing where it may; elsewhere says what to install, and the tests that need it are skipped.
# One by one where all at once fails: a distribution without one of them still gets the rest.
system:
	@if ! command -v dpkg-query >/dev/null; then \
		echo "This is not Debian: tests that need a missing one of these are skipped: $(ENGINES)" >&2; exit 0; \
	fi; \
	missing=; \
	for package in $(TOOLS) $(ENGINES); do \
		case "$$(dpkg-query --show --showformat='$${Status}' $$package 2>/dev/null)" in \
			*" installed") ;; \
			*) missing="$$missing $$package" ;; \
		esac; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "Tests that need these are skipped until you run: sudo apt-get install$$missing" >&2; exit 0; \
	fi; \
	echo "Installing$$missing" >&2; \
	export DEBIAN_FRONTEND=noninteractive; \
	install="apt-get install -qq --yes --no-install-recommends -o Dpkg::Use-Pty=0"; \
	{ apt-get update -qq; $$install $$missing || for package in $$missing; do $$install $$package || true; done; } \
		</dev/null >/dev/null

clean:
	rm -rf $(VENV) demo dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
