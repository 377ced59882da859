"""What devices would refuse is refused here, before anything is signed: by the device's own rules, for every state."""

from __future__ import annotations

from collections.abc import Sequence

from packagemanager import changes, database
from packagemanager.control import paragraph
from packagemanager.errors import RefusedError
from packagemanager.master.emit import Order
from packagemanager.master.errors import RequestError
from packagemanager.master.repository import Repositories

INSTALLED = "install ok installed"
ADVICE = "Want what is lacking; an essential or protected package may go with --expendable NAME."


def refuse_as_devices(order: Order, known: Repositories, places: Sequence[str]) -> None:
    """``known`` are packages that devices may have; ``places`` name the states of ``order`` for a person.

    Raises:
        RequestError: a device in one of the states would refuse the transaction, with its reasons.
    """
    wanted = {package.key: package for package in order.configure}
    wish = changes.Wish(
        {key: package.version for key, package in wanted.items()},
        unpack=[package.key for package in order.unpack],
        removals=order.removals,
        expendable=order.expendable,
        purge=order.purge,
    )
    made: dict[tuple[str, str], database.Package] = {}
    for state, place in zip(order.states, places, strict=True):
        for one in state.items():
            if one not in made:
                made[one] = _as_installed(*one, known)
        installed = {key: made[key, version] for key, version in state.items()}
        offered = {key: wanted[key].fields for key in changes.lacking(installed, wish)}
        try:
            changes.decide(installed, wish, offered, (order.architecture,))
        except RefusedError as error:
            raise RequestError(f"{place}: a device in this state would refuse it: {error}", ADVICE) from error


def _as_installed(key: str, number: str, known: Repositories) -> database.Package:
    """As a device has it. Where nobody knows that version, the newest that is known speaks for it."""
    name, _, architecture = key.partition(":")
    package = known.exactly(key, number) or next((one for one in known.named(name) if one.key == key), None)
    bare = paragraph(
        f"Package: {name}\nStatus: {INSTALLED}\nVersion: {number}\nArchitecture: {architecture}\n".encode()
    )
    return database.Package(package.fields.changed(Status=INSTALLED, Version=number) if package else bare)
