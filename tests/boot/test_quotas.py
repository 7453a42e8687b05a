"""Quotas of users hold in upper, as on a plain disk; root's is a limit, as with overlayfs."""

from pathlib import Path

from .quotas import CALLS, UNIONS

SCRIPT = f"""
cat >/run/quotas.py <<'END'
{Path(__file__).with_name("quotas.py").read_text()}
END
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
modprobe loop && modprobe fuse
python3 /run/quotas.py 2>&1
"""
# What runs the script is the first process: it takes no service, and a fraction of the time.
INIT = "init=/usr/lib/union-test/run"


def test_a_user_gets_no_more_than_the_quota_allows(machine):
    ended = machine().boot(INIT, SCRIPT, until="@@END")
    assert ended.status == 0, ended.report
    said = ended.values()
    assert said["plain_root"] == ","  # CAP_SYS_RESOURCE
    for options in UNIONS:
        where = f"union_{options.partition('=')[0] or 'plainly'}"
        for word in CALLS:
            if (word, options) != ("allocate", "direct=off"):  # a limit
                assert "EDQUOT" in said[f"{where}_{word}"]
                host = "overlay" if word == "large" else "plain"  # what is copied up counts
                assert said[f"{where}_{word}"] == said[f"{host}_{word}"], where
        assert said[f"{where}_root"] == said["overlay_root"] == "EDQUOT,EDQUOT"
        # A quota that is full is in nobody else's way.
        assert said[f"{where}_others"] == said["plain_others"] == "0,EDQUOT,,,,,"
