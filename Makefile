# All that the project does, by name.  `make setup` is implied where it is needed.
# On a machine with an environment of its own: make check BIN=/path/to/bin/

PYTHON ?= python3
BIN ?= .venv/bin/
PREFIX ?= /opt/unionfs
LINKS ?= /usr/local/bin

# What it takes to build pyfuse3 and to mount.
BUILD_PACKAGES = fuse3 libfuse3-dev pkg-config gcc libc6-dev python3-dev python3-venv
# What the tests run over the union or compare it with.
TEST_PACKAGES = xfsprogs btrfs-progs squashfs-tools erofs-utils e2fsprogs attr acl libcap2-bin rsync \
	sqlite3 logrotate git passwd fuse-overlayfs unionfs-fuse mergerfs strace mount procps util-linux

.PHONY: help setup setup-tests demo check test ci bench man install uninstall clean

help:
	@echo 'make setup     install what is needed into .venv (and Debian packages that are missing)'
	@echo 'make demo      change this machine in many ways, over a union; then nothing has changed'
	@echo 'make check     format, lint, types and core tests, in seconds'
	@echo 'make test      all tests; as root, with real mounts'
	@echo 'make ci        what CI runs: check and test, and a skipped test fails'
	@echo 'make bench     compare with other union file systems'
	@echo 'make man       write build/unionfs.1'
	@echo 'make install   install into $(PREFIX), for mount(8) and fstab(5) too; see also uninstall'

ifeq ($(BIN),.venv/bin/)
.venv/stamp: pyproject.toml
	tools/packages.sh $(BUILD_PACKAGES)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer, please")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -e '.[test,check,man]'
	touch $@

setup: .venv/stamp
else
setup:
endif

setup-tests: setup
	tools/packages.sh $(TEST_PACKAGES)

demo: setup
	tools/packages.sh dpkg passwd sed
	tools/demo.sh $(BIN)unionfs

check: setup
	$(BIN)ruff format --check .
	$(BIN)ruff check .
	$(BIN)mypy
	$(BIN)pytest -q tests/core

test: setup-tests
	$(BIN)pytest tests --ignore=tests/mounted --ignore=tests/programs
	$(BIN)pytest tests/mounted tests/programs  # their mounts live as long as the process: its namespace stays

ci: export CI = true
ci: check
	$(MAKE) test BIN=$(BIN)

bench: setup
	$(BIN)pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)python -m bench install
	mkdir -p build
	$(BIN)python -m bench --json build/bench.json --plots docs --readme

man: build/unionfs.1

build/unionfs.1: setup unionfs/commands.py unionfs/arguments.py tools/manual.py
	mkdir -p build
	PYTHONPATH=. $(BIN)python tools/manual.py >build/manual.inc
	PYTHONPATH=. $(BIN)argparse-manpage --module unionfs.commands --function parser --prog unionfs \
		--project-name unionfs --manual-section 1 --manual-title 'User Commands' \
		--description 'see several directories as one; changes go to the top one alone' \
		--include build/manual.inc --output $@

install: man
	tools/packages.sh $(BUILD_PACKAGES)
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/pip install --quiet --disable-pip-version-check --upgrade .
	# Without PYTHONPATH and the like: whose shell it is must not matter to a daemon.
	sed -i '1s/python[0-9.]*$$/& -I/' $(PREFIX)/bin/unionfs $(PREFIX)/bin/pyunionfs
	mkdir -p $(LINKS) $(PREFIX)/share/man/man1 /usr/local/share/man/man1
	install -m 644 build/unionfs.1 $(PREFIX)/share/man/man1/
	for name in unionfs pyunionfs; do \
		ln -sf $(PREFIX)/bin/$$name $(LINKS)/$$name; \
		ln -sf $(PREFIX)/share/man/man1/unionfs.1 /usr/local/share/man/man1/$$name.1; \
	done

uninstall:
	rm -f $(LINKS)/unionfs $(LINKS)/pyunionfs
	rm -f /usr/local/share/man/man1/unionfs.1 /usr/local/share/man/man1/pyunionfs.1
	rm -rf $(PREFIX)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
