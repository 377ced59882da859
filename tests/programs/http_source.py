"""The device's client of web servers, as tests make it: nobody watches, and no pause is made."""

from __future__ import annotations

from payload import fetch
from payload.dns import Resolver
from payload.fetch import HttpSource
from payload.http import Limits
from payload.http_client import Client
from tests.unit.web_server import WebServer

PATIENT = Limits()
OF_ONE_LOOK = fetch.START_BYTES


def alive() -> None:
    """Nobody watches."""


def client(limits: Limits = PATIENT) -> Client:
    return Client(Resolver((), alive), alive, limits)


class Slept:
    """Takes note of pauses and makes none."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


def source(server: WebServer, pause: Slept | None = None) -> HttpSource:
    return HttpSource(client(), server.url, pause or Slept())
