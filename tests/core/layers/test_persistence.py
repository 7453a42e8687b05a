"""The rules of what persists, compared with a naive matcher of whole paths."""

import fnmatch
import timeit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unionfs.layers.persistence import ALL_PERSISTS, NOTHING_PERSISTS, Rules

READONLY_ROOT = ["/etc/passwd", "/etc/ssh", "!/etc/ssh/moduli", "/etc/ssh_*", "/var/lib/dbus"]


def persisted(rules, path):
    return Rules.parse(rules).at(path).persisted


@pytest.mark.parametrize(
    ("rules", "path", "expected"),
    [
        ([], b"etc", False),
        (READONLY_ROOT, b".", False),
        (READONLY_ROOT, b"etc", False),
        (READONLY_ROOT, b"etc/passwd", True),
        (READONLY_ROOT, b"etc/passwd-", False),
        (READONLY_ROOT, b"etc/passwd/below", True),
        (READONLY_ROOT, b"etc/ssh", True),
        (READONLY_ROOT, b"etc/ssh/sshd_config", True),
        (READONLY_ROOT, b"etc/ssh/moduli", False),
        (READONLY_ROOT, b"etc/ssh_known", True),
        (["/etc/ssh/", "//etc/./group"], b"etc/ssh/x", True),
        (["/etc/ssh/", "//etc/./group"], b"etc/group", True),
        # The last rule that speaks of a path decides.
        (["!/etc/ssh/moduli", "/etc/ssh"], b"etc/ssh/moduli", True),
        (["/etc/ssh/keys", "!/etc/ssh"], b"etc/ssh/keys", False),
        (["/a", "!/a/b", "/a/b/c"], b"a/b", False),
        (["/a", "!/a/b", "/a/b/c"], b"a/b/c/d", True),
        # Globs are those of one component, and `*` is for names with a dot in front, too.
        (["/home/*/.ssh"], b"home/anna/.ssh", True),
        (["/home/*/.ssh"], b"home/anna/x/.ssh", False),
        (["/*", "!/tmp"], b".hidden", True),
        (["/*", "!/tmp"], b"tmp/x", False),
        (["/k?y[0-9]"], b"key7", True),
        (["/k?y[!0-9]"], b"key7", False),
        (["/a?b"], "aüb".encode(), True),  # a character, not a byte
        (["/ü"], "ü".encode(), True),
        (["/a[*]b"], b"a*b", True),
        (["/a[*]b"], b"axb", False),
        (["/x\\y"], b"x\\y", True),
        (["/[]x]", "!/[[]"], b"]", True),
        (["/*"], b"\xff\xfe\n", True),
    ],
)
def test_the_last_rule_that_speaks_of_a_path_or_of_a_parent_decides(rules, path, expected):
    assert persisted(rules, path) is expected


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("", "it names no path; say /PATH"),
        ("!", "it names no path; say !/PATH"),
        ("etc/passwd", "the path is not absolute; say '/etc/passwd'"),
        ("!etc/passwd", "the path is not absolute; say '!/etc/passwd'"),
        ("!!/etc", "the path is not absolute; say '!/!/etc'"),
        ("/", "the root is of both sides; say '/*' for all"),
        ("!/./", "the root is of both sides; say '!/*' for all"),
        ("/etc/../passwd", "'..' is not followed; say the path without it"),
        ("/etc/\0", "no path has a NUL in it; leave it out"),
        ("/\ud800", "'\\ud800' cannot be a file's name; say it in UTF-8"),
        (
            "/var/**/log",
            "'**' is not known; a directory's rule holds for all below it, and '*' for",
        ),
        ("/a[bc", "'[' has no ']'; say '[[]' for the character itself"),
        ("/a[]", "'[' has no ']'"),
        ("/a[!]", "'[' has no ']'"),
        ("/key[9-0]", "'9-0' runs backwards; say '0-9'"),
    ],
)
def test_a_bad_rule_is_named_and_what_would_be_right(rule, says):
    with pytest.raises(ValueError, match="bad rule") as caught:
        Rules.parse(["/fine", rule])
    assert str(caught.value).startswith(f"bad rule '{rule}': ")
    assert says in str(caught.value)


def test_rules_are_kept_in_their_shortest_form():
    rules = Rules.parse(["/etc//ssh/", "!/./etc/ssh/moduli"])
    assert rules.texts == ("/etc/ssh", "!/etc/ssh/moduli")
    assert rules == Rules.parse(rules.texts)
    assert rules
    assert not Rules.parse([])


def test_what_no_rule_can_change_any_more_is_one_constant():
    root = Rules.parse(READONLY_ROOT).root
    etc = root.child(b"etc")
    assert (root.leads, etc.leads, etc.child(b"ssh").leads) == (True, True, True)
    assert root.child(b"home") is NOTHING_PERSISTS
    assert etc.child(b"passwd") is ALL_PERSISTS
    assert etc.child(b"ssh").child(b"moduli") is NOTHING_PERSISTS
    assert etc.child(b"ssh").child(b"x") is ALL_PERSISTS
    assert NOTHING_PERSISTS.child(b"x") is NOTHING_PERSISTS
    assert Rules.parse([]).root is NOTHING_PERSISTS
    assert Rules.parse(["!/etc"]).root is NOTHING_PERSISTS
    assert Rules.parse(["/etc/ssh", "/etc"]).root.child(b"etc") is ALL_PERSISTS


def test_a_thousand_rules_cost_as_much_as_one():
    many = Rules.parse([f"/etc/{number}/conf" for number in range(1000)]).root
    one = Rules.parse(["/etc/7/conf"]).root

    def seconds(root):
        etc = root.child(b"etc")
        return min(timeit.repeat(lambda: etc.child(b"7").child(b"conf"), number=1000, repeat=5))

    assert seconds(many) < 10 * seconds(one)  # it was 1.0; a list of a thousand would be 100


# The naive matcher

NAMES = ["a", "b", "ab", "ba", "é"]
COMPONENTS = [*NAMES, "*", "a*", "?", "[ab]", "[!a]", "[!a]?"]

paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)
rules = st.builds(
    lambda mark, components: mark + "/" + "/".join(components),
    st.sampled_from(["", "!"]),
    st.lists(st.sampled_from(COMPONENTS), min_size=1, max_size=4),
)


def naive(texts, path):
    """Is *path* persisted, says the last rule that matches it or one of its parents?"""
    answer = False
    for text in texts:
        components = text.removeprefix("!").strip("/").split("/")
        if len(components) <= len(path) and all(map(fnmatch.fnmatchcase, path, components)):
            answer = not text.startswith("!")
    return answer


@given(st.lists(rules, max_size=8), paths)
@example(["/*/b", "!/b/b"], ["b", "b"])  # a rule that changes nothing yet outweighs another later
def test_the_tree_agrees_with_a_naive_matcher(texts, path):
    node = Rules.parse(texts).root
    for length, name in enumerate(path, 1):
        was = node
        node = node.child(name.encode())
        assert node.persisted is naive(texts, path[:length])
        assert was.leads or node.persisted is was.persisted  # what does not lead is of one side
