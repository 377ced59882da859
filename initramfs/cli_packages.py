"""The verbs `packages …` on the build host: for a root in a folder, as a factory or a test has one."""

from __future__ import annotations

import os
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from initramfs.cli_registry import CONFIG, Option, Verb
from initramfs.errors import BuildError
from packagemanager import cli

if TYPE_CHECKING:
    from packagemanager.opened import Opened
    from packagemanager.order import Order
    from packagemanager.root import Root
    from packagemanager.scripts import Run
    from packagemanager.transact import Report
    from packagemanager.tree import Tree

KEYS = Option(("--keys",), "whom to believe: a public key or a file of roots", kind=Path, metavar="FILE")
ROOT = Option(("--root",), "the folder that the packages are in", kind=Path, metavar="DIR", required=True)
TRANSACTION = Option(
    ("transaction",), "the master's transaction: a file, a disk or a partition", kind=str, metavar="FILE", default=""
)
OF_A_DEVICE = ("--live", "--offline")
HERE = {"--root": ROOT, "transaction": TRANSACTION}  # what these are on this side


class Host:
    """No journal, no running system: what is applied is settled at once. Scripts run with the folder as their root."""

    def __init__(self) -> None:
        from initramfs.progress import Progress

        self._progress = Progress()

    def root(self, folder: str) -> Root:
        from packagemanager.root import Root

        return Root(folder)

    def order(self, chosen: Namespace, tree: Tree, last_serial: int, opened: Opened, *, take: bool = False) -> Order:
        from initramfs import bundle_file, config
        from packagemanager.order import order_of
        from packagemanager.transaction import Transaction, believe
        from payload.bundle import read_header
        from payload.manifest import decode
        from payload.root_files import pinned_by
        from payload.trust import Trusted

        device = config.load(chosen.config) if chosen.config else None
        keys = chosen.keys or (device.keyring.root if device else None)
        if keys is None:
            raise BuildError("a transaction is only worth what its signatures are", "Give --keys or -c device.toml.")
        stack = ExitStack()
        opened.add(stack.close)
        source = stack.enter_context(bundle_file.opened(Path(chosen.transaction)))
        header = read_header(source)
        compatible = device.compatible if device else decode(header.manifest_bytes).compatible
        manifest, _trusted = believe(header, Trusted(pinned_by(keys, compatible)), compatible, last_serial)
        return order_of(Transaction(source, header, manifest), tree)

    def ledger(self, folder: str) -> None:
        return None

    def run(self, folder: str) -> Run:
        from packagemanager.scripts import runner

        return runner(os.path.realpath(folder))

    def report(self) -> Report:
        return self._progress.count

    def alive(self) -> None:
        pass


def _verb(verb: cli.Verb) -> Verb:
    def run(chosen: Namespace) -> int:
        if not chosen.root.is_dir():
            raise BuildError(f"{chosen.root} is no folder", "A running device has its own command.")
        chosen.root = str(chosen.root)
        chosen.live, chosen.offline = True, False
        chosen.json = chosen.output_format == "json"
        return cli.run(verb, chosen, Host())

    names = {option.name for option in verb.options}
    options = [HERE.get(option.name) or _option(option) for option in verb.options if option.name not in OF_A_DEVICE]
    if "transaction" in names:
        options += [KEYS, Option(CONFIG.names, CONFIG.help, kind=Path, metavar=CONFIG.metavar)]
    return Verb(f"packages {verb.name}", f"{verb.summary[0].upper()}{verb.summary[1:]}.", run, tuple(options),
                verb.description, tuple(dict.fromkeys(map(_example, verb.examples))))  # fmt: skip


def _example(line: str) -> str:
    """With what it needs on this side."""
    words = [word for word in line.split() if word not in OF_A_DEVICE]
    keys = ["--keys", "root.pub"] if words[-1].endswith(".ubk") else []
    return " ".join([*words, *([] if "--root" in words else ["--root", "rootfs"]), *keys])


def _option(option: cli.Option) -> Option:
    default: object = None
    if option.is_position:
        default = [] if option.many else ""
    return Option((option.name,), option.help, kind=str, metavar=option.metavar, default=default, flag=option.flag,
                  many=option.many)  # fmt: skip


VERBS = tuple(_verb(verb) for verb in cli.VERBS)
