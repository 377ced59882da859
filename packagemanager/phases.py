"""The phases of a transaction: docs/packages.md. There is none (None) while nothing is under way, or only staging."""

from __future__ import annotations

WAITING = "waiting"  # the intent for the next start: until then nothing in the system is touched
FORWARD = "forward"  # the intent: every operation will be done
TRYING = "trying"  # every one is done, and what they replaced is still there
BACK = "back"  # every one will be undone
DONE = "done"  # the new set stays; the transaction's folder is being removed
UNDONE = "undone"  # the old set is back; the transaction's folder is being removed
PHASES = (WAITING, FORWARD, TRYING, BACK, DONE, UNDONE)

# Not on the disk: the plan does not read, so nobody can say which piece belongs where.
DAMAGED = "damaged"

# The fact "kind" of a plan. What is not this needs no trial: a repair, an adoption.
APPLY = "apply"
