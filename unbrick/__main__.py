"""Start the toolkit from a checkout or from an installed wheel (see pyproject.toml)."""

import sys
from pathlib import Path


def main() -> int:
    sys.path.insert(0, str(Path(__file__).parent / "lib"))
    from initramfs.cli import main as toolkit

    return toolkit()


if __name__ == "__main__":
    sys.exit(main())
