"""The root of a virtual device, mounted on this host as its recovery mounts it, to stage transactions in it.

By loop devices and an overlay, so it needs root. No machine of the device runs meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from packagemanager.engine import Engine
from packagemanager.entry import FILE, Entry
from packagemanager.operation import MAKE_DIRECTORY, PUT, REMOVE, Operation
from packagemanager.root import Root
from packagemanager.staging import Staging
from scripts.virtual.commands import run
from tests.boot.device import Device

HINT = "run this as root, with loop devices and overlays"
TRANSACTION = b"\x51" * 32


@contextmanager
def mounted(device: Device, folder: Path) -> Iterator[Path]:
    """The primary slot below the system state of its image, or a read-write one itself; below ``folder``."""
    record = device.record
    if record.installed.kind == "read-write":
        with _looped(device, "slot", folder / "root"):
            yield folder / "root"
        return
    places = {name: folder / name for name in ("lower", "data", "root")}
    state = places["data"] / "system" / f"{record.installed.digest[:16].hex()}-{record.upper_generation}"
    with ExitStack() as undo:
        undo.enter_context(_looped(device, "slot", places["lower"], "ro,"))
        undo.enter_context(_looped(device, "data", places["data"]))
        for made in (state / "upper", state / "work", places["root"]):
            made.mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir={places['lower']},upperdir={state}/upper,workdir={state}/work"
        run(["mount", "-t", "overlay", "-o", layers, "unbrick", places["root"]], hint=HINT)
        undo.callback(run, ["umount", places["root"]], hint=HINT)
        yield places["root"]


@contextmanager
def _looped(device: Device, region: str, place: Path, options: str = "") -> Iterator[None]:
    """A region of the disk, mounted at ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    extent = device.disk.layout[region]
    loop = f"{options}loop,offset={extent.offset},sizelimit={extent.size}"
    run(["mount", "-o", loop, device.disk.path, place], hint=HINT)
    try:
        yield
    finally:
        run(["umount", place], hint=HINT)


def stage(
    device: Device,
    folder: Path,
    plan: Mapping[str, bytes | None],
    serial: int = 1,
    then: Callable[[Engine], None] = lambda _engine: None,
) -> None:
    """A transaction as the OS leaves it: staged, and the phase says forward. None in ``plan``: the file goes.

    ``then`` is what the OS did besides before its power was cut.
    """
    with mounted(device, folder) as place, closing(Root(str(place))) as tree:
        engine = Engine(tree)
        operations = list(_operations(tree, plan))
        engine.prepare(tuple(operations), {"serial": str(serial), "transaction": TRANSACTION.hex()})
        engine.begin()
        then(engine)


def _operations(tree: Root, plan: Mapping[str, bytes | None]) -> Iterator[Operation]:
    staging = Staging(tree)
    made: set[str] = set()
    for path, content in plan.items():
        folder = path.rpartition("/")[0]
        if tree.look(folder) is None and folder not in made:
            made.add(folder)
            yield Operation(MAKE_DIRECTORY, folder, mode=0o755)
        kept = tree.look(path) is not None
        if content is None:
            yield Operation(REMOVE, path, kept=True)
        else:
            entry = Entry(path, FILE, mode=0o755 if "bin/" in path else 0o644)
            yield Operation(PUT, path, staged=staging.file(entry, (content,)), kept=kept)


def pend(device: Device, serial: int = 1) -> None:
    """What the OS tells the journal once a transaction is staged."""
    device.remember(state="PACKAGES_PENDING", packages_serial=serial, packages_digest=TRANSACTION)


def found(device: Device, folder: Path, *paths: str) -> dict[str, bytes | None]:
    """What these files of the root hold now; None where there is none."""
    with mounted(device, folder) as place:
        return {path: (place / path).read_bytes() if (place / path).is_file() else None for path in paths}
