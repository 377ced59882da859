"""A transaction as a file: its content, as the one image of a signed bundle. Runs on the build host only."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packagemanager.master.emit import Order, Written, write_content
from payload.create import BundleInput, Created, ImageInput, create
from payload.frames import silent
from payload.manifest import NOTHING, PACKAGES

if TYPE_CHECKING:
    from payload.frames import Progress
    from payload.roots import Link
    from payload.signing_key import SigningKey

# Small: a device that fetches some parts of a transaction fetches whole frames.
FRAME_BYTES = 32 << 10


@dataclass(frozen=True)
class Label:
    """What the manifest says beside the packages. Times are seconds since 1970."""

    compatible: str
    serial: int
    name: str
    signed_at: int
    expires_at: int


def create_transaction(
    order: Order, label: Label, signing_keys: Sequence[SigningKey], roots: Sequence[Link], output: Path,
    progress: Progress = silent,
) -> tuple[Written, Created]:  # fmt: skip
    """Write the signed transaction to ``output``; it appears whole or not at all. The first key signs, others too.

    Raises:
        RepositoryError: a package cannot be had.
        RequestError: there is more in it than a device reads.
        PayloadInputError: a field of ``label`` is not as a manifest wants it.
        OSError: the output cannot be written; what was there before is still there.
    """
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder) / "content"
        with content.open("wb") as file:
            written = write_content(order, file, progress)
        image = ImageInput(content, NOTHING, PACKAGES, PACKAGES, NOTHING, "/", FRAME_BYTES)
        bundle = BundleInput(
            label.compatible, label.serial, label.name, NOTHING, (image,), label.signed_at, label.expires_at
        )
        key, *cosigners = signing_keys
        created = create(bundle, key, output, progress, cosigners=cosigners, roots=roots)
    return written, created
