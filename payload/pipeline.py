"""Computing beside reading and writing: the processor's time and the medium's pass together.

``read`` stays in the caller's thread and comes in an order that depends on the arguments alone, whatever the
threads do: power cuts can be played at every operation. ``compute`` runs in other threads, and may touch only what
nobody writes meanwhile; digests, decompression and reads let go of the interpreter's lock. Memory is bounded: see
:func:`items_ahead`.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    Item = TypeVar("Item")
    Content = TypeVar("Content")
    Result = TypeVar("Result")

THREADS_MAX = 2  # also on one processor: one waits for the medium while the other computes
BYTES_AHEAD_MAX = 1 << 20
ITEMS_AHEAD_MAX = 8


def items_ahead(item_bytes: int) -> int:
    """How many items of this size to read before the first of them is used."""
    return max(1, min(ITEMS_AHEAD_MAX, BYTES_AHEAD_MAX // item_bytes))


def pipelined(
    items: Sequence[Item],
    read: Callable[[Item], Content],
    compute: Callable[[Item, Content], Result],
    ahead: int,
) -> Iterator[tuple[Item, Result]]:
    """Each item with ``compute(item, read(item))``, in the order of ``items``.

    ``read`` is called here, in order, for at most ``ahead`` items beyond the one that is handed out; so
    many contents or results are in memory. ``compute`` is called in another thread. What either raises is
    raised here, ``compute``'s error in place of its item.
    """
    workers = _workers(min(ahead, len(items) - 1))
    waiting: list[tuple[Item, _Task]] = []
    try:
        for number, item in enumerate(items):
            task = _Task(compute, item, read(item))
            if workers:
                workers[number % len(workers)].give(task)
            else:
                task.run()
            waiting.append((item, task))
            if len(waiting) > ahead:
                first, oldest = waiting.pop(0)
                yield first, oldest.result()
        while waiting:
            first, oldest = waiting.pop(0)
            yield first, oldest.result()
    finally:
        for worker in workers:
            worker.dismiss()


def _workers(wanted: int) -> list[_Worker]:
    """Threads, fewer or none where the system has none to give: then the caller's computes."""
    workers: list[_Worker] = []
    try:
        while len(workers) < min(wanted, THREADS_MAX):
            workers.append(_Worker())
    except RuntimeError:
        pass
    return workers


class _Task:
    """Something to compute, and what came out of it. Not used twice."""

    __slots__ = ("_arguments", "_compute", "_done", "_failure", "_result")

    def __init__(self, compute: Callable[..., Any], *arguments: Any) -> None:
        self._compute = compute
        self._arguments = arguments
        self._result: Any = None
        self._failure: BaseException | None = None
        self._done = _locked()

    def run(self) -> None:
        try:
            self._result = self._compute(*self._arguments)
        except BaseException as error:  # it belongs to whoever asks for the result
            self._failure = error
        self._arguments = ()
        self._done.release()

    def result(self) -> Any:
        """Waits until it was run."""
        self._done.acquire()
        if self._failure is not None:
            raise self._failure
        return self._result


class _Worker:
    """A thread that runs tasks, one after the other.

    Raises:
        RuntimeError: the system has no thread to give.
    """

    __slots__ = ("_ended", "_tasks", "_wake")

    def __init__(self) -> None:
        self._tasks: list[_Task | None] = []
        self._wake = _locked()
        self._ended = _locked()
        start_new_thread(self._serve, ())

    def give(self, task: _Task | None) -> None:
        self._tasks.append(task)
        self._call()

    def dismiss(self) -> None:
        """Forget what is not begun, and wait for the thread's end."""
        self._tasks[:] = [None]  # at once: the thread never finds the list empty where it has just seen a task
        self._call()
        self._ended.acquire()

    def _call(self) -> None:
        """Only one thread gives, so nobody else releases the lock between the question and the answer."""
        if self._wake.locked():
            self._wake.release()

    def _serve(self) -> None:
        try:
            while True:
                self._wake.acquire()
                while self._tasks:
                    task = self._tasks.pop(0)
                    if task is None:
                        return
                    task.run()
        finally:
            self._ended.release()


def _locked() -> LockType:
    lock = allocate_lock()
    lock.acquire()
    return lock
