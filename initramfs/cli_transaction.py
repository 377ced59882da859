"""The verbs of the packages' master: transaction create, info."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from initramfs.cli_registry import Option, Verb, position, show
from initramfs.cli_secrets import PASSPHRASE_OPTIONS, SIGNING_KEYS, expiry, signing_keys, signing_time
from initramfs.errors import BuildError

if TYPE_CHECKING:
    from packagemanager.master.compose import Composed
    from packagemanager.master.emit import Written
    from packagemanager.master.request import Request
    from payload.create import Created

TRANSACTION_DAYS = 90
CHANGES_TOLD_MAX = 40
STATE_LETTERS_TOLD = 16


def transaction_create(arguments: Namespace) -> int:
    from packagemanager.errors import PackageError

    try:
        return _create(arguments)
    except PackageError as error:
        raise BuildError(str(error), error.advice) from error


def _create(arguments: Namespace) -> int:
    from initramfs.debian import default_cache_dir
    from initramfs.progress import Progress
    from packagemanager.master.compose import compose
    from packagemanager.master.transaction_file import Label, create_transaction
    from payload.root_files import load_roots

    request = _request(arguments).checked()
    if not arguments.dry_run and not (arguments.key and arguments.output):
        raise BuildError("a transaction needs a key and a file", "Give --key FILE and -o FILE.ubk, or --dry-run.")
    with Progress() as progress:
        progress.count("resolve", 0, 1)
        composed = compose(request, arguments.cache or default_cache_dir())
        if arguments.dry_run:
            show(arguments, _decided(request, composed), _change_lines(composed))
            return 0
        signed_at = signing_time()
        expires_at = expiry(arguments.expires, signed_at, TRANSACTION_DAYS)
        name = request.serial_name or str(request.serial)
        label = Label(request.compatible, request.serial, name, signed_at, expires_at)
        roots = load_roots(arguments.roots) if arguments.roots else ()
        keys = signing_keys(arguments)
        made = create_transaction(composed.order, label, keys, roots, arguments.output, progress.count)
    facts = {"output": str(arguments.output), **_decided(request, composed), **_made(*made)}
    show(arguments, facts, [*_change_lines(composed), *_made_lines(arguments.output, *made)])
    return 0


def _request(arguments: Namespace) -> Request:
    from packagemanager.master.request import Request, load_request, pins

    request = load_request(arguments.config) if arguments.config else Request()
    flags = {name: True for name in ("upgrade", "downgrade", "recommends", "full", "purge") if getattr(arguments, name)}
    flags |= {name: False for name in ("deltas", "essential") if getattr(arguments, f"no_{name}")}
    return request.with_options(
        compatible=arguments.compatible,
        serial=arguments.serial,
        serial_name=arguments.serial_name,
        architecture=arguments.architecture,
        want=arguments.want,
        pin=pins(arguments.pin),
        repositories=arguments.repository,
        old=arguments.old,
        states=arguments.state,
        expendable=arguments.expendable,
        **flags,
    )


def _decided(request: Request, composed: Composed) -> dict[str, Any]:
    return {
        "serial": request.serial,
        "wanted": {package.key: package.version for package in composed.order.configure},
        "changes": [{"package": key, "from": before, "to": after} for key, before, after in composed.changes],
    }


def _made(written: Written, created: Created) -> dict[str, Any]:
    return {
        "digest": created.digest.hex(),
        "bytes": created.file_bytes,
        "deb_bytes": written.deb_bytes,
        "deltas": len(written.deltas),
        "whole": len(written.whole),
        "needed_bytes": written.needed,
    }


def _change_lines(composed: Composed) -> Iterator[str]:
    for key, before, after in composed.changes[:CHANGES_TOLD_MAX]:
        yield f"  {key}: {before or 'not there'} → {after or 'removed'}"
    if len(composed.changes) > CHANGES_TOLD_MAX:
        yield f"  and {len(composed.changes) - CHANGES_TOLD_MAX} more; --json has them all"
    yield f"{len(composed.order.configure)} packages are wanted, {len(composed.changes)} of them change or go"


def _made_lines(output: Path, written: Written, created: Created) -> Iterator[str]:
    yield f"{output}: {created.file_bytes} bytes, {len(written.deltas)} deltas, {len(written.whole)} whole packages"
    if written.deb_bytes:
        yield f"  the packages that change have {written.deb_bytes} bytes"
    for state, needed in written.needed.items():
        yield f"  a device in state {state[:STATE_LETTERS_TOLD]}… reads {needed} bytes of packages"


def transaction_info(arguments: Namespace) -> int:
    from packagemanager.errors import PackageError

    try:
        facts = _claims(arguments.transaction)
    except PackageError as error:
        raise BuildError(f"{arguments.transaction}: {error}", error.advice) from error
    show(arguments, facts, _claim_lines(arguments.transaction, facts))
    return 0


def _claims(path: Path) -> dict[str, Any]:
    """What a transaction says of itself. Signatures are not looked at; the frames that are read are verified."""
    from initramfs.bundle_file import opened
    from packagemanager.transaction import Transaction
    from payload.bundle import read_header
    from payload.manifest import decode
    from payload.trust import attach_tables

    with opened(path) as source:
        header = read_header(source)
        manifest = decode(header.manifest_bytes)
        if not manifest.is_transaction:
            raise BuildError(f"{path} is an operating system's bundle", f"`unbrick bundle info {path}` shows it.")
        attach_tables(manifest, header.tables)
        index = Transaction(source, header, manifest).index
        return {
            "type": "transaction",
            "believed": False,
            "bytes": source.size,
            "compatible": manifest.compatible,
            "serial": manifest.version,
            "serial_name": manifest.version_name,
            "digest": manifest.digest.hex(),
            "signed_by": [name.hex() for name, _signature in header.signatures],
            "architecture": index.architecture,
            "states": [state.hex() for state in index.states],
            "wanted": index.wanted,
            "unpack": index.unpack_keys(),
            "removals": list(index.removals),
            "expendable": list(index.expendable),
            "purge": index.purge,
            "parts": [
                {"package": part.key, "kind": part.kind, "bytes": part.size, "from": list(part.bases)}
                for part in index.parts
            ],
        }


def _claim_lines(path: Path, facts: dict[str, Any]) -> Iterator[str]:
    yield f"{path}: transaction {facts['serial']} ({facts['serial_name']}) for {facts['compatible']!r}"
    yield f"  digest     {facts['digest']}"
    yield from (f"  signed by  key {name}" for name in facts["signed_by"] or ["none"])
    yield f"  wanted     {len(facts['wanted'])} packages of {facts['architecture']}"
    yield from (f"  goes       {key}" for key in facts["removals"])
    yield from (f"  state      {state}" for state in facts["states"])
    for part in facts["parts"]:
        version = facts["wanted"][part["package"]]
        how = f"from {', '.join(part['from'])}" if part["from"] else f"whole, {part['bytes']} bytes"
        yield f"  brings     {part['package']} {version}, {how}"
    yield f"  file       {facts['bytes']} bytes"
    yield "Nothing of this is believed here: `unbrick bundle verify` asks as a device does."


CREATE_OPTIONS = (
    Option(("-c", "--config"), "the request as a file; options add to it", kind=Path, metavar="TRANSACTION.TOML"),
    Option(("--want",), "a root of the wanted set: NAME, `NAME (>= 1)`, `A | B`", metavar="PACKAGE", many=True),
    Option(("--repository",), "apt, a folder of debs, a list, or `URL SUITE COMPONENT`", metavar="PLACE", many=True),
    Option(("--old",), "more places to find what devices have, for deltas", metavar="PLACE", many=True),
    Option(("--state",), "what a device last said of itself, or a dpkg status file", metavar="FILE", many=True),
    Option(("--compatible",), "the kind of device", metavar="NAME", default=""),
    Option(("--serial",), "a whole number; above that of the last transaction", kind=int, metavar="N"),
    Option(("--serial-name",), "the transaction as people call it", metavar="TEXT", default=""),
    Option(("--architecture",), "of the packages; amd64 without", metavar="ARCH", default=""),
    Option(("--pin",), "this version and no other, if the package is wanted", metavar="NAME=VERSION", many=True),
    Option(("--upgrade",), "take the newest version of everything; without, what devices have stays", flag=True),
    Option(("--downgrade",), "what is older than devices have may come; without, only by --pin or a version in --want",
           flag=True),
    Option(("--recommends",), "recommended packages, too", flag=True),
    Option(("--no-essential",), "essential packages only if something wants them", flag=True),
    Option(("--expendable",), "an essential or protected package that may go", metavar="NAME", many=True),
    Option(("--purge",), "what goes leaves no configuration", flag=True),
    Option(("--full",), "every wanted package, whole: for devices in any state", flag=True),
    Option(("--no-deltas",), "whole packages only", flag=True),
    replace(SIGNING_KEYS, required=False),
    *PASSPHRASE_OPTIONS,
    Option(("--roots",), "the file of roots: the chain that it carries", kind=Path, metavar="FILE"),
    Option(("--expires",), "no network source may offer it from then on: YYYY-MM-DD or never; 90 days without",
           metavar="DAY", default=""),
    Option(("--cache",), "where fetched packages are kept", kind=Path, metavar="FOLDER"),
    Option(("--dry-run",), "say what would change, and write nothing", flag=True),
    Option(("-o", "--output"), "the transaction to write", kind=Path, metavar="FILE.ubk"),
)  # fmt: skip
VERBS = (
    Verb(
        "transaction create",
        "Decide what packages devices shall have, and write the signed transaction that gets them there.",
        transaction_create,
        CREATE_OPTIONS,
        "The wanted set is what --want names and all that it needs. What devices have and nothing wants goes.\n"
        "Every --state is one that the transaction serves: with deltas where its packages are still to be had, with\n"
        "whole packages where not. `apt` are the lists of this machine's apt, whose signatures it verified; other\n"
        "places are believed as they are. Nothing older than devices have comes, unless a --pin, a --want with a\n"
        "version or --downgrade asks for it. The file is a bundle: `unbrick bundle sign, verify, serve` work on it.",
        (
            "unbrick transaction create -c transaction.toml --serial 8 --key signing.key -o packages-8.ubk",
            "unbrick transaction create --want device-base --want openssh-server --repository apt --upgrade \\\n"
            "      --state device-1.json --state device-2.json --compatible virtual --serial 8 --key signing.key \\\n"
            "      -o packages-8.ubk",
            "unbrick transaction create -c transaction.toml --serial 9 --pin libc6=2.36-9+deb12u7 --dry-run",
            "unbrick transaction create -c transaction.toml --serial 9 --full --key signing.key -o any-state.ubk",
        ),
    ),
    Verb(
        "transaction info",
        "Show what a transaction claims: the wanted set, the states it serves, its parts.",
        transaction_info,
        (position("transaction", "the transaction"),),
        "Nothing is believed: signatures are not looked at. `unbrick bundle verify` looks at them and at every frame.",
        ("unbrick transaction info packages-8.ubk", "unbrick transaction info packages-8.ubk --json"),
    ),
)
