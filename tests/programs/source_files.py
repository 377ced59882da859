"""Modules of Python as files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from initramfs.source_imports import SourceModule


def source(text: str, name: str = "sample", *, own: bool = True) -> SourceModule:
    return SourceModule(name, text.encode(), f"{name}.py", False, "asked for", own)


def write(folder: Path, modules: Mapping[str, str]) -> None:
    """Source by module name; what has a module below it is a package."""
    for name, text in modules.items():
        path = folder.joinpath(*name.split("."))
        for package in itertools.takewhile(lambda parent: parent != folder, path.parents):
            package.mkdir(parents=True, exist_ok=True)
            (package / "__init__.py").touch()
            package.with_suffix(".py").unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        target.write_text(text)
