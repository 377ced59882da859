"""Load the lab's plugin from this checkout, and let no test fail because its host was busy."""

from hypothesis import settings

pytest_plugins = ["qemu.pytest_plugin"]

# Hypothesis' own limit is 200 ms of wall-clock time for an example.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
