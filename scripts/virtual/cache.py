"""Things that take long to make and depend on a recipe alone, kept by the digest of that recipe.

An entry is a folder that ends with the file ``complete``: a build cut half-way is made again.
Two processes that want the same entry take turns by a kernel lock, which dies with its holder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

DIGEST_CHARACTERS = 16
DIGEST = rf"[0-9a-f]{{{DIGEST_CHARACTERS}}}"
ENTRIES_MAX = 12


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
        os.utime(complete)
        return entry
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(entry, ignore_errors=True)
            entry.mkdir()
            make(entry)
            complete.write_text(json.dumps(recipe, sort_keys=True, default=str, indent=1) + "\n")
            _forget_oldest(cache, name)
    return entry


def _forget_oldest(cache: Path, name: str) -> None:
    """Keep the entries of this name that were used last: every new recovery program makes new images."""
    entries = [entry for entry in cache.glob(f"{name}-*") if re.fullmatch(DIGEST, entry.name[len(name) + 1 :])]
    used = {entry: _last_use(entry) for entry in entries}
    for entry in sorted(entries, key=used.__getitem__, reverse=True)[ENTRIES_MAX:]:
        shutil.rmtree(entry, ignore_errors=True)


def _last_use(entry: Path) -> float:
    complete = entry / "complete"
    return complete.stat().st_mtime if complete.exists() else 0.0
