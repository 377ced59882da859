"""The console: what matches, what is passed over, and how a vain wait ends."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from qemu.console import LINE_BYTES_MAX, Console
from qemu.errors import ConsoleTimeout, ConsoleUnwanted, MachineEnded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "console"


def say(path: Path, text: str) -> None:
    with path.open("ab") as stream:
        stream.write(text.encode())


def say_later(path: Path, *texts: str) -> threading.Thread:
    def talk() -> None:
        for text in texts:
            time.sleep(0.08)
            say(path, text)

    thread = threading.Thread(target=talk)
    thread.start()
    return thread


def test_each_match_goes_on_behind_the_one_before(path: Path) -> None:
    say(path, "one two one\r\nthree one\n")
    console = Console(path)
    assert console.expect("one", 1).start() == 0
    assert console.expect("one", 1).start() == 8
    assert console.expect("three", 1).string == "three one"
    assert console.expect(re.compile("one$"), 1).start() == 6
    with pytest.raises(ConsoleTimeout):
        console.expect("one", 0)


def test_a_match_on_an_unfinished_line_goes_on_when_the_line_does(path: Path) -> None:
    say(path, "login: ")
    console = Console(path)
    console.expect("login: ", 1)
    say(path, "root login: \n")
    assert console.expect("login: ", 1).start() == 12
    with pytest.raises(ConsoleTimeout):
        console.expect("login", 0)


def test_an_expression_never_sees_half_a_number(path: Path) -> None:
    say(path, "wrote 4")
    talk = say_later(path, "2", "1 blocks\n")
    assert Console(path).expect(re.compile(r"wrote (\d+)"), 5)[1] == "421"
    talk.join()


def test_an_expression_may_end_a_prompt_that_stays(path: Path) -> None:
    say(path, "slot 17> ")
    assert Console(path).expect(re.compile(r"slot (\d+)> *"), 5)[1] == "17"


def test_nothing_that_was_printed_before_is_lost(path: Path) -> None:
    lines = [f"line {number}\n" for number in range(40_000)]
    say(path, "".join(lines))
    console = Console(path)
    began = time.monotonic()
    for number in (0, 1, 17_000, 17_001, 39_999):
        console.expect(re.compile(rf"^line {number}$"), 5)
    assert time.monotonic() - began < 5


def test_a_timeout_shows_the_end_of_the_console(path: Path) -> None:
    say(path, "".join(f"line {number}\n" for number in range(100)))
    with pytest.raises(ConsoleTimeout) as caught:
        Console(path).expect("hello", 0.1)
    said = str(caught.value)
    assert "no 'hello' on the console within 0.1 s" in said
    assert str(path) in said
    assert "line 60\n" in said and "line 99" in said and "line 59" not in said


def test_a_guest_that_never_stops_printing_cannot_hold_a_wait(path: Path) -> None:
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            say(path, "noise\n" * 20_000)

    thread = threading.Thread(target=flood)
    thread.start()
    began = time.monotonic()
    with pytest.raises(ConsoleTimeout):
        Console(path).expect("silence", 0.5)
    stop.set()
    thread.join()
    assert time.monotonic() - began < 3


def test_what_must_not_appear_ends_the_wait(path: Path) -> None:
    say(path, "fine\nKernel panic - not syncing: no init\nready\n")
    console = Console(path)
    with pytest.raises(ConsoleUnwanted, match="no init"):
        console.expect("ready", 1, unless="Kernel panic")
    console.expect("ready", 1, unless="Kernel panic")


def test_the_last_words_of_a_machine_that_ended_are_read(path: Path) -> None:
    say(path, "good night")
    console = Console(path, lambda: "the emulator ended with code 0")
    console.expect(re.compile(r"good \w+"), 1)
    with pytest.raises(MachineEnded, match="code 0 before 'hello' was printed"):
        console.expect("hello", 60)


def test_a_line_without_end_is_read_in_pieces(path: Path) -> None:
    say(path, "x" * (3 * LINE_BYTES_MAX) + " end\n")
    console = Console(path)
    console.expect("end", 1)
    assert len(console.expect(re.compile("$"), 1).string) < 2 * LINE_BYTES_MAX


def test_bytes_that_are_no_text_do_no_harm(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00 ok\n")
    Console(path).expect("ok", 1)


def test_kernel_starts_are_counted_and_nothing_that_looks_alike(path: Path) -> None:
    console = Console(path)
    assert console.starts == 0
    say(path, "\x1bc[    0.000000] Linux version 6.1.0 (gcc)\r\n")
    say(path, "Linux version 6.1.0\n[    7.1] cat: Linux version 6.1.0\n")
    assert console.starts == 1
    say(path, "half a line[    0.000000][    T0] Linux version 6.1.0\n")
    assert console.starts == 2
