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
    """``prepare`` makes the folder ``server`` from before.img and after.img. ``client`` makes client/out from
    before.img and http://127.0.0.1:{port}/. All of it is in /measured. ``classes``: in which it competes."""

    name: str
    classes: tuple[str, ...]
    prepare: str
    client: str


PEERS = (
    DeltaContender(
        "casync",
        (ANY_SEED, OLD_KNOWN),
        "casync make --store=/measured/server/new.castr /measured/server/new.caibx /measured/after.img",
        "casync extract --store=http://127.0.0.1:{port}/new.castr --seed=/measured/before.img "
        "http://127.0.0.1:{port}/new.caibx /measured/client/out",
    ),
    DeltaContender(
        "zchunk",
        (ANY_SEED,),
        "zck -o /measured/server/new.zck /measured/after.img; zck -o /measured/before.zck /measured/before.img",
        "cd /measured/client; zckdl -q -s /measured/before.zck http://127.0.0.1:{port}/new.zck; unzck -c new.zck >out",
    ),
    DeltaContender(
        "zsync -z",
        (ANY_SEED,),
        "cd /measured/server; cp /measured/after.img new; zsyncmake -z -C -o new.zsync new; rm new",
        "cd /measured/client; zsync -q -i /measured/before.img -o out http://127.0.0.1:{port}/new.zsync",
    ),
    DeltaContender(
        "xdelta3",
        (OLD_KNOWN,),
        "xdelta3 -e -f -s /measured/before.img /measured/after.img /measured/server/new.vcdiff",
        "cd /measured/client; curl -sf -o patch http://127.0.0.1:{port}/new.vcdiff; "
        "xdelta3 -d -f -s /measured/before.img patch out",
    ),
    # By default it sees 64 MiB of the old image at a time; files move further where a system is updated in place.
    DeltaContender(
        "xdelta3 -B 512M",
        (OLD_KNOWN,),
        "xdelta3 -e -9 -S djw -B 536870912 -f -s /measured/before.img /measured/after.img /measured/server/wide.vcdiff",
        "cd /measured/client; curl -sf -o patch http://127.0.0.1:{port}/wide.vcdiff; "
        "xdelta3 -d -B 536870912 -f -s /measured/before.img patch out",
    ),
    DeltaContender(
        "zstd --patch-from",
        (OLD_KNOWN,),
        "zstd -q -f -19 --long=31 --patch-from=/measured/before.img /measured/after.img -o /measured/server/new.zst",
        "cd /measured/client; curl -sf -o patch http://127.0.0.1:{port}/new.zst; "
        "zstd -q -d -f --long=31 --memory=2048MB --patch-from=/measured/before.img patch -o out",
    ),
)
_CLIENT = "/measured/unbrick-client {port} new.ubk {key} /measured/before.img /measured/client/out"
ALL = (
    DeltaContender(OURS, (ANY_SEED,), "", f"{_CLIENT}"),
    DeltaContender(f"{OURS}, old known", (OLD_KNOWN,), "", f"{_CLIENT} /measured/before.ubk"),
    *PEERS,
)
NAMES = tuple(contender.name for contender in ALL)
