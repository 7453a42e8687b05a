"""What comes with the command: manual pages, completion, and the version of the Debian package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import unionfs
from unionfs.commands.commands import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, "-m", "tools.manual", directory], cwd=ROOT, check=True)
    return directory


def shown(page):
    """Return a page as man(1) shows it, and what groff complains of."""
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", page],
        env={"MANWIDTH": "80", "PATH": "/usr/bin:/bin", "MAN_KEEP_FORMATTING": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def test_each_command_has_a_page(pages):
    names = {path.name for path in pages.iterdir()}
    assert names == {"unionfs.1", *(f"unionfs-{name}.1" for name in COMMANDS)}


def test_groff_takes_all_pages_as_they_are(pages):
    for page in (*pages.iterdir(), ROOT / "docs/unionfs.5"):
        text, complaints = shown(page)
        assert (page.name, complaints) == (page.name, "")
        assert "NAME" in text


def test_a_page_says_what_help_says(pages):
    text, _ = shown(pages / "unionfs-mount.1")
    assert "--lower DIR\n              a layer that is only read; may be repeated" in text
    assert r"(separated by commas; \, \: and \\ stand for themselves in names)" in text


def test_each_word_of_the_kernel_command_line_is_in_the_manual():
    scripts = "".join(path.read_text() for path in (ROOT / "boot").iterdir() if path.is_file())
    words = set(re.findall(r"last_word (unionfs\.\w+)", scripts))
    assert len(words) >= 3
    manual = (ROOT / "docs/unionfs.5").read_text()
    assert {word for word in words if word not in manual} == set()


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def completions(words):
    """Return what bash offers for the last of *words*."""
    script = subprocess.run(
        [sys.executable, "-m", "tools.completion"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    script += f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _unionfs\n"
    script += "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    done = subprocess.run(["bash", "-eu"], input=script, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["unionfs", "um"], ["umount"]),
        (["unionfs", "mount", "--l"], ["--lower"]),
        (["unionfs", "check", "--re"], ["--repair"]),
        (["unionfs", "run", "--", "--l"], []),  # COMMAND's own options
    ],
)
def test_bash_completes(words, offered):
    assert completions(words) == offered


def test_the_debian_package_has_the_version_of_the_program():
    first = (ROOT / "debian/changelog").read_text().splitlines()[0]
    assert re.fullmatch(r"pyunionfs \((.*)\) .*", first)[1] == unionfs.__version__
