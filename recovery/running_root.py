"""The root that runs, for work on its packages. What recovery works on before the OS runs is `recovery.slot_root`'s."""

from __future__ import annotations

import os

from packagemanager.root import Root

# As recovery leaves them to the OS: the data partition, and the image below an immutable slot's overlay.
DATA, LOWER = "/run/unbrick/data", "/run/unbrick/lower"


def is_layered() -> bool:
    """Whether the root is an image with a state above it that lies on the data partition."""
    return os.path.ismount(LOWER) and os.path.ismount(DATA)


def running_root(folder: str) -> Root:
    """The root that runs, which is ``folder``. Raises ``OSError``."""
    return Root(folder, DATA if is_layered() else "")
