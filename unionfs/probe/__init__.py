"""Does a directory keep what rename(2) promises?  `unionfs probe DIR` tries it out.

The package runs on machines without FUSE: it imports nothing but the standard
library, and `python3 -m unionfs.probe DIR` starts it without the rest.

    command     the command line and its exit status
    runner      one check after the other, each in a process of its own
    report      the table and the JSON
    catalogue   all checks: names, identity, people, races, programs, extensions
    model       what a check is, and what it may find
    trees       directory trees as literals: made, looked at, removed
    children    processes that answer, as another user where that matters

Every check starts with a tree given as a literal.  Names that begin with
`target` are what is renamed *onto*, all others what is renamed.  `--plant`
writes either half into any directory, so that a union can be put together
afterwards whose sources and targets come from the layers one wants to see;
`--planted` then probes those very objects.
"""

from unionfs.probe.command import configure, run

__all__ = ["configure", "run"]
