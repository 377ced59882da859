"""The verbs of the device's command that change what runs: install, commit, rollback, resume, check.

Thin: what they do is `recovery.update`. One installation runs at a time, held by a kernel lock that dies with its
holder, so nobody ever has a lock to delete. Where a bundle comes from is one function, :func:`open_source`: a path,
or the URLs of one bundle (`recovery.download`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from device_config import CONFIG

from payload.bundle import is_far
from payload.errors import BundleError, FetchError, PayloadError, PayloadUnreadableError, TrustError
from payload.url import parse
from recovery import asked, update
from recovery.asked import Asked
from recovery.console import tell_console
from recovery.device_journal import lock_update
from recovery.disks import find_disk
from recovery.pace import PacedReader, Terminal, byte_count, byte_text, received
from recovery.package_commit import check_scripts, commit_packages
from recovery.package_phase import ON_TRIAL, packages_phase
from recovery.workshop import Workshop, image_of
from statemachine.reasons import CODES, advice, label
from statemachine.record import NO_DIGEST, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from payload.bundle import Reader
    from payload.sources import Source

    Run = Callable[[argparse.Namespace], int]

DONE, ERROR, NOTHING_TO_DO, RESTART_NEEDED = 0, 1, 2, 4
SYSTEM = "/"
SOURCE_FILE = "/run/unbrick/data/update-source"  # not in the system state: another version starts with its own
URLS_MAX = 8
NICE = 19  # the disk's scheduler follows: the lowest of its best-effort levels
_OUTCOMES = {
    update.INSTALLED: (RESTART_NEEDED, "installed; restart to try it: unbrick reboot"),
    update.STAGED: (RESTART_NEEDED, "on the disk and verified; restart to install it: unbrick reboot"),
    update.WAITS_FOR_RESTART: (RESTART_NEEDED, "waits for a restart: unbrick reboot"),
    update.CURRENT: (DONE, "runs already"),
}


_INSTALL_EXAMPLES = """examples:
  unbrick install /data/os.ubk                 a newer or an older version, at or above the floor
  unbrick install /dev/sda1                    from a disk or partition that begins with a bundle
  unbrick install http://updates.example.org/os.ubk
                                               from any static web server; https:// where the image has it
  unbrick install http://one.example/os.ubk http://two.example/os.ubk
                                               mirrors: one that fails or lies is set behind the other
  unbrick install --background --rate-limit 2M os.ubk
  unbrick reboot                               try it; without a commit the device comes back by itself
  unbrick resume                               after a power cut or a kill: go on where it was

From a URL only what the device does not hold already is fetched: with two slots straight into the other one, with
one slot the whole bundle, onto the disk. What was fetched before a cut is not fetched again, by `unbrick resume`
(the same source, options and rate limit) or by the same command. A bundle that has expired is refused from a URL, and
taken as a file. The OS has to be online; names are asked of the servers in /etc/resolv.conf.

exit codes: 0 done, 1 error, 4 done, and a restart is needed
"""
_CHECK_EXAMPLES = """examples:
  unbrick check                                read and verify everything that is kept here
  unbrick check os.ubk                         would this device take it?
  unbrick check http://updates.example.org/os.ubk && unbrick install http://updates.example.org/os.ubk
                                               is there something newer? Only the header is fetched

exit codes: 0 intact, or a bundle that would be taken (from a URL: a newer one), 1 damaged, refused or out of reach,
2 the URL has nothing newer, 4 it is installed already, and a restart is needed
"""


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add them to the device's parser."""
    install = _verb(verbs, "install", "install a version from a bundle; it runs after a restart", _install)
    install.epilog, install.formatter_class = _INSTALL_EXAMPLES, argparse.RawDescriptionHelpFormatter
    bundle = "the bundle (.ubk), a disk or partition that begins with one, or a URL and its mirrors"
    install.add_argument("where", metavar="FILE|URL", nargs="+", help=bundle)
    install.add_argument("--again", action="store_true", help="also a version that failed on this device")
    install.add_argument("--one-way", action="store_true", help="also where the version that runs could not come back")
    kept = "from a URL with two slots: bring the whole bundle to the disk, too, for repairs without a network"
    install.add_argument("--keep", action="store_true", help=kept)
    _pace(install)
    _pace(_verb(verbs, "resume", "go on with an installation that was interrupted", _resume))
    for name, text in (("mark-good", "the OS runs well: confirm its image"), ("commit", "the same as mark-good")):
        _verb(verbs, name, text, _commit)
    _verb(verbs, "rollback", "back to the other version that ran well; it runs after a restart", _rollback)
    check = _verb(verbs, "check", "verify everything that is kept, or whether a bundle would be taken", _check)
    check.epilog, check.formatter_class = _CHECK_EXAMPLES, argparse.RawDescriptionHelpFormatter
    check.add_argument("where", metavar="FILE|URL", nargs="*", help="a bundle: would this device take it?")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, run: Run
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="say the result as JSON")
    parser.set_defaults(run=lambda chosen: explained(run, chosen), refuse=parser.error, then="")
    return parser


def _pace(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(again=False, one_way=False, keep=False)
    parser.add_argument("--background", action="store_true", help="give way to everything else that runs")
    parser.add_argument("--rate-limit", metavar="BYTES", type=byte_count, default=0, help="per second; 500K, 2M")


def explained(run: Run, chosen: argparse.Namespace) -> int:
    """Run it; an error is one line with its reason and one with what to do."""
    try:
        return run(chosen)
    except update.UpdateError as error:
        return _fail(chosen, error.reason, str(error))
    except (PayloadError, FetchError) as error:
        reason = CODES.get(error.reason, CODES["slot-write-failed"])
        return _fail(chosen, reason, f"{label(reason)}: {error}")


def _fail(chosen: argparse.Namespace, reason: int, text: str) -> int:
    step = advice(reason).removesuffix(".") + chosen.then + "."
    if chosen.json:
        print(json.dumps({"outcome": "failed", "reason": label(reason), "detail": text, "advice": step}))
    print(f"unbrick: {text}\nunbrick: what to do: {step}", file=sys.stderr)
    return ERROR


def _install(chosen: argparse.Namespace) -> int:
    _check_where(chosen)
    with Alone():
        wanted = Asked(chosen.where, chosen.keep, chosen.again, chosen.one_way, chosen.rate_limit)
        asked.remember(SOURCE_FILE, wanted)
        return _update_from(chosen, wanted)


def _check_where(chosen: argparse.Namespace) -> None:
    """One path, or a few URLs that this image can ask: anything else ends the command, and nothing is remembered."""
    if len(chosen.where) > 1 and not asked.is_far(chosen.where):
        chosen.refuse("several places are mirrors of one bundle: all of them have to be URLs")
    if len(chosen.where) > URLS_MAX:
        chosen.refuse(f"at most {URLS_MAX} URLs")
    for text in chosen.where:
        if "://" not in text:
            continue
        try:
            check_url(text)
        except FetchError as error:
            chosen.refuse(str(error))


def check_url(text: str) -> None:
    """That this image can ask there. Raises ``UpdateError`` where it cannot, ``FetchError`` where that is no URL."""
    network, scheme = CONFIG.get("network"), parse(text).scheme
    if not network or (scheme == "https" and not network.get("https")):
        raise update.UpdateError("network-not-built", f"{scheme} is not part of this image")


def _update_from(chosen: argparse.Namespace, wanted: Asked) -> int:
    terminal = Terminal(sys.stderr)
    workshop = make_workshop(terminal)
    record = make_ledger().look()
    try:
        source = open_source(wanted.where, workshop, record)
        terminal.watch = source
        try:
            return _update(chosen, workshop, source, wanted)
        finally:
            source.close()
    except (FetchError, PayloadUnreadableError):
        chosen.then = "; then `unbrick resume`, which fetches what is missing" if asked.is_far(wanted.where) else ""
        raise
    except (BundleError, TrustError, update.UpdateError):
        if asked.is_far(wanted.where):
            _forget_unless_begun()
        raise


def _forget_unless_begun() -> None:
    """A bundle that was refused before anything was written is no interrupted installation."""
    if make_ledger().look().target.digest == NO_DIGEST:
        asked.forget(SOURCE_FILE)


def _update(chosen: argparse.Namespace, workshop: Workshop, source: Reader, wanted: Asked) -> int:
    if chosen.background:
        os.nice(NICE)
    ledger = make_ledger()
    paced = PacedReader(source, wanted.rate_limit)
    outcome = update.update(workshop, ledger, paced, wanted.again, wanted.one_way, wanted.keep)
    record = ledger.look()
    image = record.target if record.target.digest != NO_DIGEST else record.installed
    is_kept = update.is_kept(workshop, image.digest)
    if outcome == update.CURRENT or is_kept or is_far(source):
        asked.forget(SOURCE_FILE)
    code, text = _OUTCOMES[outcome]
    if outcome == update.CURRENT:
        text += ", and is kept for repairs" if is_kept else "; its bundle is not kept for repairs: --keep brings it"
    return _report(chosen, code, outcome, image.version, f"version {image.version} {text}", received(source))


def open_source(where: list[str], workshop: Workshop, record: Record) -> Source:
    """The bundle at ``where``: one path, or the URLs of one bundle, of which the newest that may be installed is taken.

    Raises:
        OSError, FetchError, PayloadError, UpdateError: there is none, and why.
    """
    from payload.sources import FileSource

    if not asked.is_far(where):
        return FileSource(os.path.realpath(where[0]), where[0])
    from recovery import download

    workshop.recall(record)
    return download.find(workshop, where, _tell_unused).source


def _tell_unused(name: str, error: Exception) -> None:
    reason = CODES[getattr(error, "reason", "server-unreachable")]
    print(f"unbrick: not used: {name}: {label(reason)}: {error}", file=sys.stderr)


def _resume(chosen: argparse.Namespace) -> int:
    with Alone():
        record, workshop = make_ledger().look(), make_workshop()
        wanted = asked.recall(SOURCE_FILE)
        if update.waits_for_restart(record):
            text = "nothing is left to do but a restart: unbrick reboot"
            return _report(chosen, RESTART_NEEDED, update.WAITS_FOR_RESTART, record.installed.version, text)
        if wanted is not None:
            wanted.rate_limit = chosen.rate_limit or wanted.rate_limit
        workshop.recall(record)
        for candidate in workshop.kept():
            if candidate is not None and candidate.manifest.digest == record.target.digest:
                kept = wanted or Asked([candidate.source.name], rate_limit=chosen.rate_limit)
                return _update(chosen, workshop, candidate.source, kept)
        if wanted is not None and wanted.is_there:
            return _update_from(chosen, wanted)
    return _report(chosen, NOTHING_TO_DO, "nothing", record.installed.version, "no installation was interrupted")


def _commit(chosen: argparse.Namespace) -> int:
    if packages_phase(SYSTEM) == ON_TRIAL:
        with Alone():  # a command may be at their scripts: a set whose scripts fail is not called good
            code = _confirm(chosen)
    else:
        code = _confirm(chosen)
    if code == DONE:
        _refresh()
    return code


def _confirm(chosen: argparse.Namespace) -> int:
    ledger = make_ledger()
    check_scripts(ledger, SYSTEM)
    try:
        record = update.commit(make_workshop(), ledger, packages_on_trial=packages_phase(SYSTEM) == ON_TRIAL)
    except update.NotPossibleError as error:
        return _report(chosen, NOTHING_TO_DO, "nothing", 0, f"nothing to confirm: {error}")
    except update.UpdateError as error:
        if error.reason != CODES["not-booted"]:
            raise
        return _report(chosen, RESTART_NEEDED, update.WAITS_FOR_RESTART, 0, str(error))
    line = f"{label(record.reason)}: version {record.confirmed_version}"
    tell_console(f"unbrick: {line}")
    code = _report(chosen, DONE, "confirmed", record.confirmed_version, line)
    commit_packages(SYSTEM)
    return code


def _refresh() -> None:
    """Keep the bundle of what was just confirmed, if it came from a file that is still there."""
    wanted = asked.recall(SOURCE_FILE)
    if wanted is None or asked.is_far(wanted.where):
        return
    try:
        with Alone():
            workshop, record = make_workshop(), make_ledger().look()
            source = open_source(wanted.where, workshop, record)
            try:
                update.refresh(workshop, record, source)
            finally:
                source.close()
            asked.forget(SOURCE_FILE)
    except (OSError, PayloadError, update.UpdateError) as error:
        print(f"unbrick: the bundle is not kept for repairs yet: {error}", file=sys.stderr)
        print("unbrick: what to do: install the same version again, from where it is now", file=sys.stderr)


def _rollback(chosen: argparse.Namespace) -> int:
    with Alone():
        record = update.rollback(make_workshop(), make_ledger())
    image = record.target if record.state == "STAGED" else record.installed
    line = f"{label(record.reason)}: version {image.version}; restart to run it: unbrick reboot"
    return _report(chosen, RESTART_NEEDED, "rolled-back", image.version, line)


def _check(chosen: argparse.Namespace) -> int:
    _check_where(chosen)
    workshop, record = make_workshop(), make_ledger().look()
    if chosen.where:
        return _check_bundle(chosen, workshop, record)
    found = update.findings(workshop, record)
    bad = [one for one in found if one["damaged"]]
    if chosen.json:
        print(json.dumps(found))
        return ERROR if bad else DONE
    for one in found:
        state = "no header" if one["damaged"] is None else f"{one['damaged']} frames damaged"
        print(f"{one['what']}: version {one['version']}, {one['condition']}: {state}")
    if bad:
        print("unbrick: what to do: `unbrick reboot --recovery` repairs the slot that runs", file=sys.stderr)
    return ERROR if bad else DONE


def _check_bundle(chosen: argparse.Namespace, workshop: Workshop, record: Record) -> int:
    from payload.bundle import read_header

    source = open_source(chosen.where, workshop, record)
    try:
        workshop.recall(record)
        header = read_header(source)
        manifest = workshop.installable(header, network=is_far(source))
        came = received(source)
    finally:
        source.close()
    image = image_of(manifest)
    if update.waits_for_restart(record) and image.digest in (record.target.digest, record.installed.digest):
        code, text = _OUTCOMES[update.WAITS_FOR_RESTART]
        return _report(chosen, code, update.WAITS_FOR_RESTART, image.version, f"version {image.version} {text}", came)
    order = (image.version > record.installed.version) - (image.version < record.installed.version)
    if is_far(source) and order <= 0:
        text = f"nothing newer: version {image.version} is there, version {record.installed.version} runs"
        return _report(chosen, NOTHING_TO_DO, "nothing", image.version, text, came)
    workshop.keyring.check_complete(header)
    update.check_not_failed(record, image)
    relation = {-1: "a downgrade", 0: "the same version", 1: "an upgrade"}
    text = f"version {image.version} would be taken: {relation[order]}"
    return _report(chosen, DONE, "accepted", image.version, text, came)


def _report(
    chosen: argparse.Namespace, code: int, outcome: str, version: int, text: str, fetched: int | None = None
) -> int:
    """``fetched`` bytes came over the network; None where nothing was to come from there."""
    if chosen.json:
        restart = code == RESTART_NEEDED
        facts = {"outcome": outcome, "version": version, "restart-needed": restart, "detail": text}
        print(json.dumps(facts if fetched is None else {**facts, "fetched": fetched}))
    else:
        print(f"unbrick: {text}" if fetched is None else f"unbrick: {text} ({byte_text(fetched)} fetched)")
    return code


class Alone:
    """The update lock. Raises ``UpdateError`` where another installation is at work."""

    def __enter__(self) -> None:
        try:
            self._lock = lock_update()
        except BlockingIOError as error:
            raise update.UpdateError("update-busy", "one installation at a time") from error

    def __exit__(self, *_error: object) -> None:
        os.close(self._lock)


def make_workshop(terminal: Terminal | None = None) -> Workshop:
    def refuse(_record: Record) -> None:
        raise AssertionError("only recovery persists intents this way")

    return Workshop(CONFIG, _disk(), lambda: None, refuse, show=terminal or Terminal(sys.stderr))


def make_ledger() -> update.Ledger:
    return update.Ledger(CONFIG, _disk())


def _disk() -> str:
    return find_disk(CONFIG["disk"]["serial"])
