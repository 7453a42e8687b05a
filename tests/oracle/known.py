"""Where kernel overlayfs rightly differs from a plain directory; the union does not.

What differs in the union itself is left out by the harvest: st_nlink, st_size
and st_blocks of directories (README, "Limits").
"""

from typing import Any

from .steps import Step
from .trees import Harvest


def kernel_says(step: Step, kernel: Any) -> Any:
    """Return what overlayfs answered, without what is its own."""
    if step.verb == "list" and isinstance(kernel, list):
        return [(name, kind) for name, kind in kernel if kind]  # d_ino of ...
    return kernel


def kernel_differs(step: Step, plain: Any, kernel: Any) -> bool:
    """Tell whether overlayfs may answer otherwise, and why."""
    return False


def kernel_tree_differs(plain: Harvest, kernel: Harvest) -> bool:
    """Tell whether overlayfs may show another tree, and why."""
    return False
