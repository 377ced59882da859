"""The lab's pytest plugin under the name that the installed package registers.

The lab is ``qemu`` in the package's ``lib`` folder. That folder goes to the *end* of the import path:
names in it must not shadow what the project under test imports.
"""

from __future__ import annotations

import sys
from pathlib import Path

_library = Path(__file__).parent / "lib"
if _library.is_dir():
    sys.path.append(str(_library))

# By name, so that it counts as the same plugin where a checkout loads it as well.
pytest_plugins = ["qemu.pytest_plugin"]
