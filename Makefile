# All that the project does, by name.  `make setup` is implied where it is needed.
# On a machine with an environment of its own: make check BIN=/path/to/bin/

PYTHON ?= python3
BIN ?= .venv/bin/
PREFIX ?= /opt/unionfs
LINKS ?= /usr/local/bin
MANUAL ?= /usr/local/share/man

# What it takes to build pyfuse3 and to mount.
BUILD_PACKAGES = fuse3 libfuse3-dev pkg-config gcc libc6-dev python3-dev python3-venv
# What the tests run over the union or compare it with.
TEST_PACKAGES = xfsprogs btrfs-progs squashfs-tools erofs-utils e2fsprogs attr acl libcap2-bin rsync \
	sqlite3 logrotate git passwd fuse-overlayfs unionfs-fuse mergerfs strace mount procps util-linux \
	man-db busybox-static bindfs sshfs openssh-server iproute2
# What it takes to build the Debian package.
DEB_PACKAGES = dpkg-dev debhelper dh-python pybuild-plugin-pyproject python3-all python3-setuptools \
	bash-completion lintian fakeroot
# What the boot tests make a Debian of, and what they run machines with.
IMAGE_PACKAGES = mmdebstrap e2fsprogs xfsprogs squashfs-tools shellcheck $(DEB_PACKAGES)
BOOT_PACKAGES = $(IMAGE_PACKAGES) qemu-system-x86 qemu-utils

.PHONY: help setup setup-tests demo lint check quick test explore ci bench man deb test-debian install install-boot \
	uninstall clean boot-test boot-quick boot-native bench-boot test-debian-quick

help:
	@echo 'make setup     install what is needed into .venv (and Debian packages that are missing)'
	@echo 'make demo      change this machine in many ways, over a union; then nothing has changed'
	@echo 'make check     format, lint, types and core tests, in seconds'
	@echo 'make quick     the tests that show most, in two minutes; as root, with real mounts'
	@echo 'make test      all tests; as root, with real mounts'
	@echo 'make explore   random tests with a seed of their own, or SEED=N: what CI does not try'
	@echo 'make ci        what CI runs: format, lint, types, all tests, and a skipped test fails'
	@echo 'make test-debian  tests, on the Debian packages that the package needs; test-debian-quick: some'
	@echo 'make boot-test boot machines in QEMU on a union, and try the Debian package; hours'
	@echo 'make boot-quick one boot and shutdown in QEMU on a union'
	@echo 'make boot-native some boots on this kernel, in namespaces; minutes, most of them for a Debian'
	@echo 'make bench-boot what a union costs a machine that boots on it; half an hour'
	@echo 'make bench     compare with other union file systems'
	@echo 'make man       write the manual pages into build/man'
	@echo 'make deb       build the Debian package, build/pyunionfs_*_all.deb'
	@echo 'make install   install into $(PREFIX), for mount(8) and fstab(5) too; see also uninstall'

ifeq ($(BIN),.venv/bin/)
.venv/stamp: pyproject.toml
	tools/packages.sh $(BUILD_PACKAGES)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer, please")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -e '.[test,check]'
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

lint: setup
	$(BIN)ruff format --check .
	$(BIN)ruff check .
	$(BIN)mypy

# In as many processes as there are processors.  The mounts of tests/mounted live as long as a process,
# so they are left out of the first run, where `unionfs status` would list them.
PARALLEL = -n auto --maxprocesses 4 --dist worksteal

check: lint
	$(BIN)pytest -q $(PARALLEL) tests/core

# Core and session, and of the mounted laws those of a file in a lower.
quick: setup-tests
	$(BIN)pytest $(PARALLEL) tests/core tests/session
	$(BIN)pytest $(PARALLEL) tests/mounted -k lower

test: setup-tests
	$(BIN)pytest $(PARALLEL) tests --ignore=tests/mounted --ignore=tests/programs --ignore=tests/boot \
		--ignore=tests/package
	$(BIN)pytest $(PARALLEL) tests/mounted tests/programs

# A seed that fails is given again as SEED=N, and the case becomes a test of its own.
explore: setup-tests
	seed=$${SEED:-$$(shuf -i 0-1048575 -n 1)}; echo "SEED=$$seed"; \
		UNIONFS_CRASH_SEED=$$seed UNIONFS_ORACLE_SEED=$$seed $(BIN)pytest $(PARALLEL) \
		tests/crash tests/gaps tests/oracle tests/audit/check/test_fuzz.py

boot-test: setup
	tools/packages.sh $(BOOT_PACKAGES)
	$(BIN)pytest -p no:cacheprovider -o faulthandler_timeout=0 tests/boot tests/package

boot-quick: setup
	tools/packages.sh $(BOOT_PACKAGES)
	$(BIN)pytest -p no:cacheprovider -o faulthandler_timeout=0 -m quick tests/boot

# The root below a union in new namespaces: systemd comes up, takes changes and powers off, all processes
# stopped are no deadlock, what is missing is said, and the README's five minutes print what they say.
boot-native: setup
	tools/packages.sh $(IMAGE_PACKAGES)
	$(BIN)pytest -p no:cacheprovider -o faulthandler_timeout=0 tests/boot/test_namespaces.py \
		tests/boot/test_state.py tests/boot/test_readme.py tests/boot/test_cycles.py -k 'not trixie and not squashfs and not twenty'

bench-boot: setup
	tools/packages.sh $(BOOT_PACKAGES)
	$(BIN)python -m tests.boot.bench

ci: export CI = true
ci: lint
	$(MAKE) test BIN=$(BIN)
	$(MAKE) boot-native BIN=$(BIN)
	$(MAKE) test-debian-quick

bench: setup
	$(BIN)pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)python -m bench install
	mkdir -p build
	$(BIN)python -m bench --json build/bench.json --plots docs --tables

man: setup
	$(BIN)python -m tools.manual build/man
	cp docs/unionfs.5 build/man/

# The tests of what the Debian package runs on: Debian's own python3, pyfuse3 and trio.
build/debian/stamp: pyproject.toml
	tools/packages.sh fuse3 python3 python3-venv python3-pyfuse3 python3-trio
	/usr/bin/python3 -m venv --system-site-packages build/debian
	build/debian/bin/pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[test]'
	touch $@

# Of these, what shows whether pyfuse3 and trio of another version serve: minutes.
test-debian-quick: build/debian/stamp
	tools/packages.sh $(TEST_PACKAGES)
	build/debian/bin/python -m pytest $(PARALLEL) tests/core tests/session
	build/debian/bin/python -m pytest $(PARALLEL) tests/mounted/test_files.py tests/mounted/test_directories.py \
		tests/mounted/test_rename.py tests/mounted/test_links.py tests/mounted/test_copyup.py

test-debian: build/debian/stamp
	tools/packages.sh $(TEST_PACKAGES)
	build/debian/bin/python -m pytest $(PARALLEL) tests/core tests/session tests/commands
	build/debian/bin/python -m pytest $(PARALLEL) tests/mounted tests/programs

# Built in a copy, by Debian's Python and no other.
deb:
	tools/packages.sh $(DEB_PACKAGES)
	rm -rf build/deb build/pyunionfs_*.deb
	mkdir -p build/deb/tree
	git ls-files --cached --others --exclude-standard -z | xargs -0 cp --parents -t build/deb/tree
	cd build/deb/tree && PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg-buildpackage --build=binary --no-sign
	lintian --fail-on error,warning,info build/deb/pyunionfs_*.changes
	mv build/deb/pyunionfs_*_all.deb build/
	rm -rf build/deb

install: man
	tools/packages.sh $(BUILD_PACKAGES)
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/pip install --quiet --disable-pip-version-check --upgrade .
	# Without PYTHONPATH and the like: whose shell it is must not matter to a daemon.
	sed -i '1s/python[0-9.]*$$/& -I/' $(PREFIX)/bin/unionfs $(PREFIX)/bin/pyunionfs
	mkdir -p $(LINKS) $(MANUAL)/man1 $(MANUAL)/man5
	install -m 644 build/man/*.1 $(MANUAL)/man1/
	install -m 644 build/man/*.5 $(MANUAL)/man5/
	for name in unionfs pyunionfs; do ln -sf $(PREFIX)/bin/$$name $(LINKS)/$$name; done

# What a machine needs to boot on a union, for the Debian package and the boot tests.
install-boot:
	install -D -m 755 -t $(DESTDIR)/usr/lib/unionfs boot/init boot/stage
	install -D -m 644 -t $(DESTDIR)/usr/lib/unionfs boot/words.sh boot/messages.sh boot/identity.sh \
		boot/sides.sh boot/initramfs.sh
	install -D -m 755 -t $(DESTDIR)/usr/share/initramfs-tools/hooks boot/initramfs-tools/hooks/unionfs
	install -D -m 755 -t $(DESTDIR)/usr/share/initramfs-tools/scripts/init-bottom \
		boot/initramfs-tools/scripts/init-bottom/unionfs
	install -D -m 755 -t $(DESTDIR)/usr/lib/dracut/modules.d/90unionfs \
		boot/dracut/90unionfs/module-setup.sh boot/dracut/90unionfs/pre-pivot.sh

uninstall:
	rm -f $(LINKS)/unionfs $(LINKS)/pyunionfs
	rm -f $(MANUAL)/man1/unionfs.1 $(MANUAL)/man1/unionfs-*.1 $(MANUAL)/man5/unionfs.5
	rm -rf $(PREFIX)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
