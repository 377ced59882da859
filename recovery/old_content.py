"""What this device holds that an update over a slow link may reuse: its slots, and the images in its local bundles.

Only looks and names. That nothing of it is believed, and what the slot that is being written may still give, is
``payload.seeds``' matter.
"""

from __future__ import annotations

from payload import install
from payload.bundle import read_header
from payload.errors import PayloadError
from payload.frames import FrameReader
from payload.seeded import Reuse
from payload.seeds import ImageInBundle, Seed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from payload.bundle import Reader
    from payload.install import Believe
    from payload.manifest import Manifest
    from statemachine.region import Region

    # a slot and the regions that keep its header
    Slot = tuple[Region, Sequence[Region]]


def reuse(
    manifest: Manifest, slot_class: str, slots: Sequence[Slot], target: int, bundles: Sequence[Reader], believe: Believe
) -> Reuse:
    """What there is to make ``manifest``'s image for ``slots[target]`` of. Nothing is written, no header repaired."""
    seeds = [
        seed
        for number, (region, headers) in enumerate(slots)
        for seed in _of_slot(region, headers, slot_class, believe, is_target=number == target)
    ]
    return Reuse(manifest, [*(seed for bundle in bundles for seed in _of_bundle(bundle, slot_class, believe)), *seeds])


def _of_slot(
    region: Region, headers: Sequence[Region], slot_class: str, believe: Believe, *, is_target: bool
) -> list[Seed]:
    """The slot under each name that a signed header gives it; after a cut there may be two. Nameless without one."""
    named: dict[bytes, Manifest] = {}
    for copy in install.read_slot_headers(headers, believe):
        if not isinstance(copy, PayloadError) and copy[1].image(slot_class).size <= region.size:
            named[copy[1].digest] = copy[1]
    return [Seed(region, manifest, is_target=is_target) for manifest in named.values()] or [
        Seed(region, is_target=is_target)
    ]


def _of_bundle(bundle: Reader, slot_class: str, believe: Believe) -> Iterator[Seed]:
    try:
        header = read_header(bundle)
        manifest = believe(header)
        frames = FrameReader(bundle, len(header.raw), manifest.image(slot_class).frames())
    except PayloadError:
        return
    yield Seed(ImageInBundle(frames), manifest)
