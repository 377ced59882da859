"""Who updates an image over a slow link, and how: what the server has, what the client runs."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.benchmarks.rows import OURS

ANY_SEED = "any_seed"
OLD_KNOWN = "old_known"
CLASSES = {ANY_SEED: "any seed: the server knows nothing of what the device has",
           OLD_KNOWN: "old version known: the server's file was made for it"}  # fmt: skip


@dataclass(frozen=True)
class DeltaContender:
    """``prepare`` makes /work/server from /work/before.img and /work/after.img. ``client`` makes /work/client/out from
    /work/before.img and http://127.0.0.1:{port}/. ``classes``: in which it competes."""

    name: str
    classes: tuple[str, ...]
    prepare: str
    client: str


PEERS = (
    DeltaContender(
        "casync",
        (ANY_SEED, OLD_KNOWN),
        "casync make --store=/work/server/new.castr /work/server/new.caibx /work/after.img",
        "casync extract --store=http://127.0.0.1:{port}/new.castr --seed=/work/before.img "
        "http://127.0.0.1:{port}/new.caibx /work/client/out",
    ),
    DeltaContender(
        "zchunk",
        (ANY_SEED,),
        "zck -o /work/server/new.zck /work/after.img; zck -o /work/before.zck /work/before.img",
        "cd /work/client; zckdl -q -s /work/before.zck http://127.0.0.1:{port}/new.zck; unzck -c new.zck >out",
    ),
    DeltaContender(
        "zsync -z",
        (ANY_SEED,),
        "cd /work/server; cp /work/after.img new; zsyncmake -z -C -o new.zsync new; rm new",
        "cd /work/client; zsync -q -i /work/before.img -o out http://127.0.0.1:{port}/new.zsync",
    ),
    DeltaContender(
        "xdelta3",
        (OLD_KNOWN,),
        "xdelta3 -e -f -s /work/before.img /work/after.img /work/server/new.vcdiff",
        "cd /work/client; curl -sf -o patch http://127.0.0.1:{port}/new.vcdiff; "
        "xdelta3 -d -f -s /work/before.img patch out",
    ),
    DeltaContender(
        "zstd --patch-from",
        (OLD_KNOWN,),
        "zstd -q -f -19 --long=31 --patch-from=/work/before.img /work/after.img -o /work/server/new.zst",
        "cd /work/client; curl -sf -o patch http://127.0.0.1:{port}/new.zst; "
        "zstd -q -d -f --long=31 --memory=2048MB --patch-from=/work/before.img patch -o out",
    ),
)
_CLIENT = "/work/unbrick-client {port} new.ubk {key} /work/before.img /work/client/out"
ALL = (
    DeltaContender(OURS, (ANY_SEED,), "", f"{_CLIENT}"),
    DeltaContender(f"{OURS}, old known", (OLD_KNOWN,), "", f"{_CLIENT} /work/before.ubk"),
    *PEERS,
)
NAMES = tuple(contender.name for contender in ALL)
