"""What a command reads from, closed in the right order when it ends. For what `contextlib` is too large on a device."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Opened:
    """What a verb reads from; it is closed when its `with` ends, the last first."""

    __slots__ = ("_closes",)

    def __init__(self) -> None:
        self._closes: list[Callable[[], object]] = []

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_error: object) -> None:
        while self._closes:
            self._closes.pop()()

    def add(self, close: Callable[[], object]) -> None:
        self._closes.append(close)
