"""A person at a terminal gives a key a passphrase, and gives it again to sign. Nothing of it is shown."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from payload.signing_key import load_signing_key

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 30.0

pytestmark = pytest.mark.requirement("D6")


def at_terminal(answers: list[tuple[bytes, bytes]], *words: str) -> tuple[int, bytes]:
    """Run the command line on a terminal of its own; each answer waits for its prompt. Exit code and screen."""
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.chdir(ROOT)
            os.execv(sys.executable, [sys.executable, "-m", "unbrick", *words])
        finally:
            os._exit(127)
    screen = b""
    deadline = time.monotonic() + SECONDS_MAX
    try:
        while True:
            left = deadline - time.monotonic()
            assert left > 0, screen
            if not select.select([terminal], [], [], left)[0]:
                continue
            try:
                piece = os.read(terminal, 4096)
            except OSError:  # the other end is closed
                piece = b""
            if not piece:
                break
            screen += piece
            if answers and answers[0][0] in screen:
                prompt, answer = answers.pop(0)
                screen = screen.replace(prompt, b"<" + prompt[:4] + b">", 1)
                os.write(terminal, answer + b"\n")
    finally:
        os.close(terminal)
        _pid, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), screen


def test_a_passphrase_is_asked_for_twice_and_then_once(tmp_path: Path) -> None:
    key = tmp_path / "safe.key"
    answers = [(b"new passphrase of", b"correct horse"), (b"the same again:", b"correct horse")]
    code, screen = at_terminal(answers, "key", "new", "--passphrase", str(key))
    assert code == 0, screen
    assert b"correct" not in screen
    assert load_signing_key(key, lambda _path: b"correct horse")
    roots = tmp_path / "device.roots"
    words = ("key", "rotate", str(roots), "-c", "docs/examples/device.toml", "--from", str(key.with_suffix(".pub")))
    code, screen = at_terminal([(b"passphrase of", b"correct horse")], *words, "--key", str(key))
    assert code == 0, screen
    assert roots.exists()


def test_two_different_passphrases_make_no_key(tmp_path: Path) -> None:
    key = tmp_path / "safe.key"
    answers = [(b"new passphrase of", b"correct horse"), (b"the same again:", b"correct house")]
    code, screen = at_terminal(answers, "key", "new", "--passphrase", str(key))
    assert code == 1 and b"the two passphrases differ" in screen
    assert not key.exists()


def test_without_a_terminal_the_other_ways_are_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unbrick", "key", "new", "--passphrase", str(tmp_path / "safe.key")],
        cwd=ROOT,
        capture_output=True,
        timeout=SECONDS_MAX,
        check=False,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert done.returncode == 1 and "--passphrase-env NAME" in done.stderr
