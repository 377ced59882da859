"""Bundles behind URLs for the running OS: whom to ask for names, whom to believe, and which bundle to take.

The link, its addresses and its name servers are the OS's own: nothing is brought up here, and names are asked of the
servers in /etc/resolv.conf (/etc/hosts is not looked at). TLS is judged as in recovery, by the anchors of the
image and the newest signed time that was ever believed; the machine's clock says nothing.
"""

from __future__ import annotations

from payload import fetch
from payload.dns import Resolver, servers_of_system
from payload.errors import PayloadError
from payload.http_client import Client
from payload.sources import Candidate
from recovery.network import secure
from recovery.workshop import Workshop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from payload.install import Believe

    Tell = Callable[[str, Exception], None]


def find(workshop: Workshop, urls: Sequence[str], tell: Tell, believe: Believe | None = None) -> Candidate:
    """The newest bundle at ``urls`` that this device may install; mirrors that have the same one are one source.

    Fetches headers alone, each once. ``tell`` hears of every URL that is not used, and why, where another one is.
    ``believe`` takes something else than an OS's image. The workshop has recalled the record. The caller closes
    the source.

    Raises:
        FetchError: no server answers.
        PayloadError: none of the bundles may be installed.
    """
    found, unreachable = fetch.open_sources(urls, _clients(workshop))
    taken, refused = workshop.downloadable(found, believe)
    failures: list[tuple[str, Exception]] = [*((source.name, error) for source, error in refused), *unreachable]
    taken.sort(key=lambda candidate: -candidate.manifest.version)
    unused = [*[source for source, _error in refused], *[candidate.source for candidate in taken[1:]]]
    for source in unused:
        source.close()
    if not taken:
        raise _of_most_use([error for _name, error in failures])
    for name, error in failures:
        tell(name, error)
    best = taken[0]
    if isinstance(best.source, fetch.HttpSource):
        best.source.remember(best.header.raw)
    return best


def _clients(workshop: Workshop) -> Callable[[], Client]:
    resolve = Resolver(servers_of_system(), workshop.alive)
    secured = secure(workshop.config["network"], workshop.keyring.trusted.clock_floor, workshop.alive)
    return lambda: Client(resolve, workshop.alive, secure=secured)


def _of_most_use(errors: list[Exception]) -> Exception:
    """What a server's bundle was refused for says more than that another one is out of reach."""
    return next((error for error in errors if isinstance(error, PayloadError)), errors[0])
