"""`unionfs boot`: what it puts into a machine's boot, tried on roots made of a few files."""

import os
import shutil
import subprocess

import pytest

from tests.commands.conftest import Result

ENTRY = """\
menuentry 'Debian, Linux {version}' --class os $menuentry_id_option 'gnulinux-{version}-x' {{
	linux /boot/vmlinuz-{version} root=/dev/vda ro$GRUB_CMDLINE_LINUX
}}
"""
# As /etc/grub.d/10_linux does, with GRUB_DISABLE_SUBMENU.
LINUX = "#!/bin/sh\n" + "".join(
    f"cat <<EOF\n{ENTRY.format(version=version)}EOF\n" for version in ("6.12", "6.1")
).replace("$menuentry", "\\$menuentry")
MENU = """\
menuentry 'Debian, Linux 6.12' --class os $menuentry_id_option 'gnulinux-6.12-x' {
	linux /boot/vmlinuz-6.12 root=/dev/vda ro
}
menuentry 'Debian, Linux 6.1' --class os $menuentry_id_option 'gnulinux-6.1-x' {
	linux /boot/vmlinuz-6.1 root=/dev/vda ro
}
menuentry 'Debian, Linux 6.12, read-only (unionfs)' --class os $menuentry_id_option 'unionfs' {
	linux /boot/vmlinuz-6.12 root=/dev/vda ro unionfs=tmpfs
}
menuentry 'Debian, Linux 6.1, read-only (unionfs)' --class os $menuentry_id_option 'unionfs-6.1-x' {
	linux /boot/vmlinuz-6.1 root=/dev/vda ro unionfs=tmpfs
}
"""
UPDATE_GRUB = """#!/bin/sh
for script in 10_linux 11_unionfs; do
    [ ! -e /etc/grub.d/$script ] || /etc/grub.d/$script
done >/boot/grub/grub.cfg
"""
UPDATE_INITRAMFS = """#!/bin/sh
[ ! -e /fail ] || { echo 'no room' >&2; exit 1; }
cd /usr/share/initramfs-tools
for kernel in 6.1 6.12; do find . -type f >/boot/initrd.img-$kernel; done
"""
LSINITRAMFS = """#!/bin/sh
sed s,^./,, "$1"
"""


class Root:
    """The root of a machine."""

    def __init__(self, bench):
        self.bench = bench
        self.path = bench.at("root")
        os.makedirs(f"{self.path}/bin")
        shutil.copy("/bin/busybox", f"{self.path}/bin/busybox")
        for name in ("sh", "cat", "sed", "awk", "find", "dirname"):
            os.link(f"{self.path}/bin/busybox", f"{self.path}/bin/{name}")

    def write(self, name, text, mode=0o644):
        path = f"{self.path}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        os.chmod(path, mode)

    def read(self, name):
        with open(f"{self.path}/{name}") as file:
            return file.read()

    def files(self):
        """All files but what the made-up commands write, with their contents and modes."""
        found = {}
        for directory, _, names in os.walk(self.path):
            for name in names:
                path = os.path.join(directory, name)
                key = os.path.relpath(path, self.path)
                if key not in {"boot/grub/grub.cfg", "boot/initrd.img-6.1", "boot/initrd.img-6.12"}:
                    with open(path, "rb") as file:
                        found[key] = file.read(), os.stat(path).st_mode
        return found

    def boot(self, line):
        return self.bench.unionfs(f"boot {line} --root {self.path}")

    def with_kernels(self):
        for kernel in ("6.1", "6.12"):
            self.write(f"lib/modules/{kernel}/modules.builtin", "")
            self.write(f"lib/modules/{kernel}/kernel/fs/fuse/fuse.ko", "")

    def with_grub(self):
        self.write("etc/grub.d/10_linux", LINUX, 0o755)
        self.write("usr/sbin/update-grub", UPDATE_GRUB, 0o755)
        self.write("usr/sbin/grub-reboot", "#!/bin/sh\necho $1 >/boot/next\n", 0o755)
        self.write("boot/grub/grub.cfg", "")

    def with_initramfs_tools(self):
        self.write("usr/lib/unionfs/stage", "#!/bin/sh\n", 0o755)
        for name in ("hooks/unionfs", "scripts/init-bottom/unionfs"):
            self.write(f"usr/share/initramfs-tools/{name}", f"# {name}\n", 0o755)
        self.write("usr/sbin/update-initramfs", UPDATE_INITRAMFS, 0o755)


@pytest.fixture
def root(plain):
    if os.geteuid() != 0:
        pytest.skip("needs root, for chroot(2)")
    made = Root(plain)
    made.with_kernels()
    made.with_grub()
    made.with_initramfs_tools()
    os.mkdir(plain.at("tools"))
    plain.write("tools/lsinitramfs", LSINITRAMFS)
    os.chmod(plain.at("tools/lsinitramfs"), 0o755)
    plain.environment["PATH"] = f"{plain.at('tools')}:{plain.environment['PATH']}"
    return made


def test_enable_adds_an_entry_for_each_kernel_and_makes_the_newest_the_default(root):
    done = root.boot("enable")
    assert (done.status, done.err) == (0, "")
    assert root.read("boot/grub/grub.cfg") == MENU
    assert "GRUB_DEFAULT=unionfs\n" in root.read("etc/default/grub.d/unionfs.cfg")
    assert "scripts/init-bottom/unionfs" in root.read("boot/initrd.img-6.1")


def test_disable_makes_all_as_it_was(root):
    before = root.files()
    assert root.boot("enable").status == 0
    assert root.files() != before
    assert root.boot("disable").status == 0
    assert root.files() == before
    assert "unionfs" not in root.read("boot/grub/grub.cfg")
    assert root.boot("disable") == Result(0, "nothing to do\n", "")


@pytest.mark.parametrize("loader", ["GRUB", "systemd-boot", "Raspberry Pi"])
def test_a_dry_run_says_what_enable_does_and_does_nothing(root, loader):
    if loader != "GRUB":
        shutil.rmtree(f"{root.path}/etc/grub.d")
        LOADERS[loader](root)
    before = root.files()
    said = root.boot("enable --dry-run")
    assert (said.status, said.err) == (0, "")
    assert root.files() == before
    assert root.boot("enable").out.startswith(said.out)


def test_a_step_that_fails_leaves_all_as_it_was(root):
    root.write("fail", "")
    before = root.files()
    done = root.boot("enable")
    assert done.status == 1
    assert "no room" in done.err
    assert "nothing was changed" in done.err
    assert root.files() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "unionfs=tmpfs"),
        ("--size 25%", "unionfs=tmpfs:size=25%"),
        ("--upper UUID=1234-ab", "unionfs=UUID=1234-ab"),
        ("--init", "unionfs=tmpfs init=/usr/lib/unionfs/init"),
    ],
)
def test_the_words_for_the_kernel(root, words, said):
    assert root.boot(f"enable {words}").status == 0
    assert f" {said}\n" in root.read("boot/grub/grub.cfg")
    assert root.boot("status").out.splitlines()[0].split(None, 1) == ["GRUB", said]


def test_state_is_as_the_configuration_says_which_has_to_be_right(root):
    root.write("etc/unionfs.toml", "persist = ['/etc/passwd']\nstate.disk = 'LABEL=state'\n")
    assert root.boot("enable --state").status == 0
    assert root.boot("status").out.splitlines()[0].split(None, 1) == ["GRUB", "unionfs=state"]


def test_the_menu_alone(root):
    assert root.boot("enable --menu-only").status == 0
    assert not os.path.exists(f"{root.path}/etc/default/grub.d/unionfs.cfg")


def test_the_next_boot_alone(root):
    assert root.boot("enable --once").status == 0
    assert "GRUB_DEFAULT=saved\n" in root.read("etc/default/grub.d/unionfs.cfg")
    assert root.read("boot/next") == "unionfs\n"


def test_status_examines_each_kernel(root):
    assert root.boot("status").status == 1
    assert root.boot("enable").status == 0
    os.remove(f"{root.path}/lib/modules/6.1/kernel/fs/fuse/fuse.ko")
    root.write("boot/initrd.img-6.12", "")
    said = root.boot("status")
    assert said.status == 1
    assert "it has no FUSE" in said.out
    assert "its initramfs does not hold our script" in said.out
    root.write("lib/modules/6.1/modules.builtin", "kernel/fs/fuse/fuse.ko\n")
    assert root.boot("enable --size 1G").status == 0
    assert root.boot("status").status == 0


BOOTCTL = "#!/bin/sh\necho $1 $2 >/boot/bootctl\n"


def with_systemd_boot(root):
    root.write("usr/bin/bootctl", BOOTCTL, 0o755)
    for kernel in ("6.1", "6.12"):
        root.write(
            f"boot/efi/loader/entries/id-{kernel}.conf",
            f"title Debian\nversion {kernel}\nlinux /id/{kernel}/linux\noptions root=UUID=1 ro\n",
        )


def with_raspberry_pi(root):
    root.write("boot/firmware/config.txt", "arm_64bit=1\n")
    root.write("boot/firmware/cmdline.txt", "console=tty1 root=PARTUUID=1-02 rootwait\n")


LOADERS = {"systemd-boot": with_systemd_boot, "Raspberry Pi": with_raspberry_pi}


@pytest.mark.parametrize("of_grub", ["etc/grub.d", "boot/grub"])
def test_systemd_boot_gets_a_twin_of_each_entry(root, of_grub):
    shutil.rmtree(f"{root.path}/{of_grub}")
    with_systemd_boot(root)
    before = root.files()
    assert root.boot("enable").status == 0
    assert root.read("boot/efi/loader/entries/id-6.1-unionfs.conf").splitlines()[2:] == [
        "title Debian, read-only (unionfs)",
        "version 6.1",
        "linux /id/6.1/linux",
        "options root=UUID=1 ro unionfs=tmpfs",
    ]
    assert root.read("boot/bootctl").startswith("set-default id-6")
    os.remove(f"{root.path}/boot/bootctl")
    root.write("boot/efi/loader/entries/new.conf", "title New\nlinux /new\n")
    os.remove(f"{root.path}/boot/efi/loader/entries/id-6.1.conf")
    assert root.boot("update-entries").status == 0
    names = sorted(os.listdir(f"{root.path}/boot/efi/loader/entries"))
    assert names == ["id-6.12-unionfs.conf", "id-6.12.conf", "new-unionfs.conf", "new.conf"]
    assert root.read("boot/efi/loader/entries/new-unionfs.conf").endswith("options unionfs=tmpfs\n")
    assert root.boot("disable").status == 0
    os.remove(f"{root.path}/boot/efi/loader/entries/new.conf")
    del before["boot/efi/loader/entries/id-6.1.conf"]
    assert root.files() == before


def test_the_raspberry_pi_gets_a_word_on_its_line(root):
    shutil.rmtree(f"{root.path}/etc/grub.d")
    with_raspberry_pi(root)
    before = root.files()
    assert root.boot("enable").status == 0
    line = "console=tty1 root=PARTUUID=1-02 rootwait unionfs=tmpfs\n"
    assert root.read("boot/firmware/cmdline.txt") == line
    assert root.boot("enable --size 1G").status == 0
    assert root.read("boot/firmware/cmdline.txt") == line.replace("tmpfs", "tmpfs:size=1G")
    assert root.boot("enable --init").status == 0
    init = line.replace("tmpfs", "tmpfs init=/usr/lib/unionfs/init")
    assert root.read("boot/firmware/cmdline.txt") == init
    assert root.boot("disable").status == 0
    assert root.files() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("enable --upper sda1", "UUID=..., LABEL=... or /dev/..."),
        ("enable --upper /dev/sda1 --size 1G", "exclude each other"),
        ("enable --size big", "bad size"),
        ("enable --state", "there is neither /etc/unionfs.toml nor"),
        ("enable --state --size 1G", "--state excludes --upper and --size"),
    ],
)
def test_bad_input_changes_nothing(root, words, told):
    before = root.files()
    refused = root.boot(words)
    assert (refused.status, refused.out) == (2, "")
    assert told in refused.err
    assert root.files() == before


def test_without_a_boot_loader_it_says_what_to_do_by_hand(root):
    shutil.rmtree(f"{root.path}/etc/grub.d")
    refused = root.boot("enable")
    assert refused.status == 2
    assert "add 'unionfs=tmpfs' to the kernel's command line by hand" in refused.err


def test_the_script_for_grub_works_with_debians_own(root):
    """As update-grub runs it, in a shell of its own."""
    assert root.boot("enable").status == 0
    done = subprocess.run(
        [f"{root.path}/etc/grub.d/11_unionfs"], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("read-only (unionfs)'") == 2
