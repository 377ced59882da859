"""Things that take long to make and depend on a recipe alone, kept by the digest of that recipe.

An entry is a folder that ends with the file ``complete``: a build cut half-way is made again.
Two processes that want the same entry take turns by a kernel lock, which dies with its holder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

DIGEST_CHARACTERS = 16


def digest_of(recipe: Mapping[str, object]) -> str:
    """A name for a recipe: equal for equal values, whatever the order of the keys."""
    text = json.dumps(recipe, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def file_digest(path: Path) -> str:
    """The digest of a file's bytes, for a recipe that depends on a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:DIGEST_CHARACTERS]


def cached(cache: Path, name: str, recipe: Mapping[str, object], make: Callable[[Path], None]) -> Path:
    """The folder that ``make(folder)`` filled for this recipe, now or earlier."""
    entry = cache / f"{name}-{digest_of(recipe)}"
    complete = entry / "complete"
    if complete.exists():
        return entry
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(entry, ignore_errors=True)
            entry.mkdir()
            make(entry)
            complete.write_text(json.dumps(recipe, sort_keys=True, default=str, indent=1) + "\n")
    return entry
