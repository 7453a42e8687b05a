"""Where kernel overlayfs rightly differs from a plain directory; the union does not.

What differs in the union itself is left out by the harvest: st_nlink, st_size
and st_blocks of directories (docs/limits.md).

Overlayfs plays without descriptors that are kept over other steps: one opened
for reading stays on the lower object after a copy-up (overlayfs.rst,
"Non-standard behavior"), and Linux 6.18 mixes up a directory that was deleted
while open, once it is changed through the descriptor, with the new one of that
name.
"""

from typing import Any

from .steps import Step
from .trees import Harvest

_ATTRIBUTES = frozenset({"stat", "create", "link"})  # they answer so, st_mtime at this index
_MTIME = 4


def kernel_may_differ(step: Step, plain: Any, kernel: Any) -> bool:
    """Tell whether overlayfs may answer otherwise."""
    if step.verb == "removexattr" and "posix_acl" in step.args[1]:
        return kernel == "ENODATA"  # where there is none; plain file systems do not mind
    if step.verb in _ATTRIBUTES and isinstance(plain, tuple) and isinstance(kernel, tuple):
        return _without_new_time(plain, kernel) == kernel
    return False


def _without_new_time(plain: tuple[Any, ...], kernel: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return *plain* with a "now" as st_mtime where overlayfs has one.

    It touches a metadata-only copy when the content follows, though nothing is written.
    """
    return plain if kernel[_MTIME] else (*plain[:_MTIME], 0, *plain[_MTIME + 1 :])


def kernel_tree(plain: Harvest, kernel: Harvest) -> Harvest:
    """Return the tree that overlayfs should show, with its new times: see above."""
    return {
        path: thing._replace(mtime=0) if path in kernel and not kernel[path].mtime else thing
        for path, thing in plain.items()
    }


def kernel_says(step: Step, kernel: Any) -> Any:
    """Return what overlayfs answered; d_ino need not be st_ino there."""
    if step.verb == "list" and isinstance(kernel, list):
        return [(name, kind) for name, kind in kernel if kind]
    return kernel
