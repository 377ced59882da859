"""What the README says is true: its numbers, its commands, its links, the reasons in its console log."""

import re
import shlex
from pathlib import Path

import pytest

from initramfs.cli import parser
from statemachine.bound import boots_max
from statemachine.reasons import REASONS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def test_k_is_what_the_table_gives() -> None:
    assert f"at most {boots_max()} starts" in README


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "unbrick"], ids=" ".join)
def test_every_command_is_understood(words: list[str]) -> None:
    parser().parse_args(words[1:])


@pytest.mark.parametrize("words", [words for words in commands() if words[0].startswith("./")], ids=" ".join)
def test_every_script_is_there_and_can_be_run(words: list[str]) -> None:
    assert (ROOT / words[0]).stat().st_mode & 0o111


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_console_log_speaks_in_reasons_that_exist() -> None:
    said = re.findall(r"\bE(\d{3}) ([a-z-]+)", "\n".join(blocks("")))
    assert said
    for code, word in said:
        if int(code):
            assert REASONS[int(code)][0] == word
