"""A chain of roots as a document and as lines for a person: what each says, and which signatures it lacks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from initramfs.cli_secrets import day
from payload.roots import Link, Root, decode_root, root_message
from payload.signatures import key_id, signers


def _missing(chain: tuple[Link, ...], index: int, before: Root | None) -> int:
    """How many signatures the root at ``index`` lacks, by its own count or the one before's."""
    link = chain[index]
    judges = [decode_root(link.text), *([decode_root(chain[index - 1].text)] if index else [before] if before else [])]
    lacking = [
        judge.root_threshold - signers(link.signatures, judge.root_keys, root_message(link.text))[1]
        for judge in judges
        if judge is not None
    ]
    return max(0, *lacking)


def chain_facts(chain: tuple[Link, ...], before: Root | None = None) -> dict[str, Any]:
    roots = []
    for index, link in enumerate(chain):
        root = decode_root(link.text)
        facts = json.loads(root.text) | {
            "digest": root.digest.hex(),
            "signed-by": [name.hex() for name, _signature in link.signatures],
            "signatures-missing": _missing(chain, index, before),
            "key-ids": {key.hex(): key_id(key).hex() for key in {*root.root_keys, *root.bundle_keys}},
        }
        roots.append(facts)
    return {"type": "roots", "roots": roots}


def chain_lines(chain: tuple[Link, ...], before: Root | None = None) -> Iterable[str]:
    for root in chain_facts(chain, before)["roots"]:
        yield f"root {root['version']} for {root['compatible']}, floor {root['floor']}, digest {root['digest'][:16]}"
        yield f"  signed {day(root['signed-at'])}, expires {day(root['expires-at'])}"
        for role in ("root", "bundle"):
            yield f"  {root[f'{role}-threshold']} of these sign {role}s: {', '.join(root[f'{role}-keys'])}"
        missing = root["signatures-missing"]
        yield f"  {missing} signatures are missing: `unbrick key sign`" if missing else "  signed by enough keys"
