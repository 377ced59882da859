"""Reading in one thread, computing in others: order, bounds, errors, and nothing left behind."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from payload import pipeline
from payload.pipeline import items_ahead, pipelined

SECONDS = 10


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = _thread._count()
    yield
    limit = time.monotonic() + SECONDS  # a thread has said its last word a moment before it is gone
    while _thread._count() > before and time.monotonic() < limit:
        time.sleep(0.001)
    assert _thread._count() <= before


class Script:
    """What was done, in the order of this thread; ``read`` may fail at an item."""

    def __init__(self, fails_at: int = -1) -> None:
        self.done: list[str] = []
        self.threads: set[int] = set()
        self._fails_at = fails_at

    def read(self, item: int) -> int:
        self.done.append(f"read {item}")
        if item == self._fails_at:
            raise OSError("the medium is gone")
        return item * 10

    def compute(self, item: int, content: int) -> int:
        self.threads.add(threading.get_ident())
        return item + content

    def use(self, count: int, ahead: int) -> list[int]:
        results = []
        for item, result in pipelined(range(count), self.read, self.compute, ahead):
            self.done.append(f"use {item}")
            results.append(result)
        return results


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("ahead", [1, 2, 8])
def test_results_come_in_the_order_of_the_items(count: int, ahead: int) -> None:
    assert Script().use(count, ahead) == [11 * item for item in range(count)]


def test_reading_is_ahead_by_a_fixed_number_and_no_more() -> None:
    script = Script()
    script.use(4, ahead=2)
    assert script.done == [
        "read 0", "read 1", "read 2", "use 0", "read 3", "use 1", "use 2", "use 3",
    ]  # fmt: skip


def test_the_order_does_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    with_threads, without = Script(), Script()
    with_threads.use(20, ahead=3)

    def none_left(function: Callable[[], None], arguments: tuple[()]) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pipeline, "start_new_thread", none_left)
    assert without.use(20, ahead=3) == [11 * item for item in range(20)]
    assert with_threads.done == without.done
    assert without.threads == {threading.get_ident()}
    assert threading.get_ident() not in with_threads.threads


def test_results_are_kept_until_they_are_asked_for() -> None:
    """The first takes longest: the others are there before it, and still come after it."""
    started = threading.Event()

    def compute(item: int, content: int) -> int:
        if item == 0:
            assert started.wait(SECONDS)
        if item == 1:
            started.set()
        return item

    assert [result for _item, result in pipelined(range(4), lambda item: item, compute, 3)] == [0, 1, 2, 3]


def test_an_error_of_the_computation_comes_in_place_of_its_item() -> None:
    def compute(item: int, content: int) -> int:
        return 6 // (3 - item)

    given = []
    with pytest.raises(ZeroDivisionError):
        for item, _result in pipelined(range(10), lambda item: item, compute, 4):
            given.append(item)
    assert given == [0, 1, 2]


def test_an_error_of_the_reader_ends_it() -> None:
    script = Script(fails_at=5)
    with pytest.raises(OSError, match="the medium is gone"):
        script.use(10, ahead=2)
    assert script.done[-2:] == ["use 2", "read 5"]


def test_what_goes_wrong_with_a_result_ends_the_threads() -> None:
    def burst() -> None:
        for item, _result in pipelined(range(100), lambda item: item, lambda item, content: item, 8):
            if item == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        burst()


@pytest.mark.parametrize(("item_bytes", "ahead"), [(4 << 20, 1), (1 << 20, 1), (256 << 10, 4), (4096, 8)])
def test_how_much_is_read_ahead_is_bounded_in_bytes_and_in_items(item_bytes: int, ahead: int) -> None:
    assert items_ahead(item_bytes) == ahead
    assert ahead == 1 or ahead * item_bytes <= pipeline.BYTES_AHEAD_MAX
