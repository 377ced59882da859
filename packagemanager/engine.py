"""Carries a plan out, so that after any cut the files are the old set or can be brought to the new one, or back.

The algorithm, with the state of the disk after every step, is docs/packages.md; the bytes are in docs/SPEC.md. This
module knows nothing of packages: it has a tree, a plan of operations and a few facts about what is under way.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from packagemanager.operation import Operation
    from packagemanager.tree import Lock, Tree

# The phases. There is none (None) while nothing is under way, or only staging; that one is never gone on with.
FORWARD = "forward"  # the intent: every operation will be done
TRYING = "trying"  # every one is done, and what they replaced is still there
BACK = "back"  # every one will be undone
DONE = "done"  # the new set stays; the transaction's folder is being removed
UNDONE = "undone"  # the old set is back; the transaction's folder is being removed
DAMAGED = "damaged"  # neither copy of the plan reads: nobody can say which piece belongs where
PHASES = (FORWARD, TRYING, BACK, DONE, UNDONE)


class Resumed:
    """What `Engine.resume` found and did.

    ``found`` is the phase that was there (None: nothing, or a staging that was dropped), ``now`` the one that it is in
    afterwards: None (nothing under way any more), `TRYING`, or `DAMAGED`. ``facts`` are those of the plan, if there was
    one that reads. ``left`` are paths that could not be brought back as they were, each with the reason; empty in all
    but strange cases (somebody put files into a folder that was new).
    """

    __slots__ = ("facts", "found", "left", "now")

    def __init__(
        self, found: str | None, now: str | None, facts: dict[str, str], left: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.found = found
        self.now = now
        self.facts = facts
        self.left = left


class Engine:
    """The transaction of one tree. ``alive`` is called between operations: a watchdog may want to know.

    The way of a transaction::

        with closing(engine.lock()):
            engine.resume()
            staging = Staging(tree)                  # ... C decides the operations
            engine.prepare(operations, facts)        # all of it durable, the system unchanged
            engine.begin()                           # the point of no return by itself
            engine.forward()                         # live; or restart, and recovery calls resume()
            ...                                      # scripts
            engine.done()                            # the OS runs well; or engine.back()

    Raises (every method but `phase`):
        DiskError: the disk refused: what was done so far is said, and whether the system changed.
        BlockedError: only `forward`: something that is not ours is in the way; `back` is possible; `resume` does it.
    """

    def __init__(self, tree: Tree, alive: Callable[[], None] = lambda: None) -> None:
        self._tree = tree
        self._alive = alive

    def lock(self) -> Lock:
        """Keep others out, until it is closed or this process ends. Raises: RefusedError: somebody else is at it."""
        raise NotImplementedError

    def phase(self) -> str | None:
        """The phase as it is on the disk, or `DAMAGED`. Changes nothing."""
        raise NotImplementedError

    def facts(self) -> dict[str, str]:
        """What `prepare` was told about the transaction that is under way; empty if none is."""
        raise NotImplementedError

    def operations(self) -> tuple[Operation, ...]:
        """The plan under way; empty if none is."""
        raise NotImplementedError

    def prepare(self, operations: tuple[Operation, ...], facts: dict[str, str]) -> None:
        """Give what will go a second name, write the plan, keep room for what comes; all is durable then.

        A `Staging` went before. The attributes of folders to be removed are read here. The system is unchanged.

        Raises:
            RefusedError: the plan does not fit what is there, by path; or the disk has no room. Then, and on a
                DiskError, what was staged is gone again.
        """
        raise NotImplementedError

    def begin(self) -> None:
        """Phase "forward", durable: from now on recovery finishes it if nobody else does."""
        raise NotImplementedError

    def forward(self) -> None:
        """Do every operation (those that are done stay so), then phase "trying", durable."""
        raise NotImplementedError

    def back(self) -> tuple[tuple[str, str], ...]:
        """Undo every operation and remove the transaction. In any phase but "done".

        Returns: paths that could not be brought back, with reasons: see `Resumed.left`.
        """
        raise NotImplementedError

    def done(self) -> None:
        """The new set stays: phase "done", durable; the transaction is removed. Only in phase "trying"."""
        raise NotImplementedError

    def resume(self) -> Resumed:
        """Finish what a cut began: see docs/packages.md. What is in "trying" stays so: its owner decides."""
        raise NotImplementedError

    def drop(self) -> None:
        """Remove the transaction's folder, whatever is in it; the system's files stay as they are.

        For what was staged and is not wanted, and after a repair that settled a `DAMAGED` transaction.
        """
        raise NotImplementedError
