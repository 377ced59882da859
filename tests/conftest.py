"""Load the lab's plugin from this checkout."""

pytest_plugins = ["qemu.pytest_plugin"]
