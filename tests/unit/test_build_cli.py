"""The command line as a person meets it: help, results, one-line errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from initramfs.cli import main, verbs
from initramfs.cli_documents import bash_completion, cli_document, device_document
from initramfs.cli_registry import Verb
from initramfs.report import sidecar_path
from payload.create import BundleInput, ImageInput, create
from payload.signing_key import generate_key, load_signing_key
from statemachine.record import Record
from statemachine.store import Store
from tests.unit.images import startable, without, write_image

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/device.toml"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "rootfs.squashfs").write_bytes(b"hsqs" + bytes(range(256)) * 4000)
    generate_key(tmp_path / "root.key", tmp_path / "root.pub")
    image = ImageInput(tmp_path / "rootfs.squashfs", "squashfs")
    wanted = BundleInput("unbrick-virtual", 2, "2.0", "6.1.0", (image,))
    create(wanted, load_signing_key(tmp_path / "root.key"), tmp_path / "os.ubk")
    return tmp_path / "os.ubk"


class FileRegion:
    """A region in memory that a test dumps into a file."""

    write_unit = 512
    erase_unit = 4096

    def __init__(self, size: int) -> None:
        self.size = size
        self.data = bytearray(size)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def flush(self) -> None:
        """Memory is as durable as it gets here."""


@pytest.fixture
def copies(tmp_path: Path) -> list[Path]:
    """Three dumped copies of a journal that saw a boot, a button and recovery."""
    regions = [FileRegion(64 * 1024) for _ in range(3)]
    store = Store(regions, bytes(16))
    store.open()
    for state, reason in (("CONFIRMED", 100), ("CONFIRMED", 100), ("SUSPECT", 103)):
        store.append(Record(state, reason=reason, boots=1).encode())
    files = [tmp_path / f"copy{number}.bin" for number in range(3)]
    for file, region in zip(files, regions, strict=True):
        file.write_bytes(region.data)
    return files


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("verb", verbs(), ids=lambda verb: verb.name)
def test_help_names_every_option_and_gives_an_example(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*verb.name.split(), "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text and f"unbrick {verb.name}" in text
    for option in verb.options:
        assert option.is_position or option.names[0] in text


def test_the_command_line_reference_is_what_the_registry_says() -> None:
    assert (ROOT / "docs/cli.md").read_text() == cli_document(verbs()), "run: unbrick docs > docs/cli.md"


def test_the_reference_of_the_devices_command_is_what_it_says_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    said = device_document()
    assert (ROOT / "docs/device-cli.md").read_text() == said, "run: unbrick docs --device > docs/device-cli.md"
    assert "## unbrick packages restore" in said and os.environ["COLUMNS"] == "40"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["unbrick", "ke"], "key"),
        (["unbrick", "key", "n"], "new"),
        (["unbrick", "bundle", "create", "--kern"], "--kernel-release"),
        (["unbrick", "bundle", "create", "--kind", "read"], "read-write"),
        (["unbrick", "journal", "show", "--conf"], "--config"),
        (["unbrick", "completion", "ba"], "bash"),
        (["unbrick", "ls", "tests/un"], "tests/unit"),
    ],
)
def test_bash_completes(words: list[str], expected: str) -> None:
    quoted = " ".join(f"'{word}'" for word in words)
    script = f'COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _unbrick; echo "${{COMPREPLY[@]}}"'
    text = f"set -u\n{bash_completion(verbs())}\n{script}"
    done = subprocess.run(["bash", "-c", text], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10)
    assert done.stdout.split() == [expected], done.stderr


def test_ls_and_info_tell_people_and_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_image(tmp_path, startable()).file
    code, out, _ = run(capsys, "ls", image, "/dev")
    assert code == 0
    assert out.splitlines()[1:] == ["c 0600       5, 1 /dev/console", "c 0666       1, 3 /dev/null"]
    listed = json.loads(run(capsys, "ls", image, "--json")[1])
    assert [item["path"] for item in listed] == [entry.path for entry in startable()]
    facts = json.loads(run(capsys, "info", image, "--json")[1])
    assert (facts["type"], facts["compression"], facts["packages"]) == ("image", "gz", {"e2fsprogs": "1.47"})


def test_why_answers_for_one_path_and_for_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_image(tmp_path, startable()).file
    code, out, _ = run(capsys, "why", image, "dev/console")
    assert (code, out.splitlines()[1]) == (0, "  because: the kernel opens it as /init's standard output")
    answers = json.loads(run(capsys, "why", image, "--json")[1])
    assert list(answers) == [entry.path for entry in startable()]


def test_diff_ends_with_a_sum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    one = write_image(tmp_path, startable()).file
    two = write_image(tmp_path / "other", without(startable(), "dev/null")).file
    assert run(capsys, "diff", one, two)[1].splitlines() == [
        "removed           +0 /dev/null", "1 paths differ, +0 bytes of content"
    ]  # fmt: skip
    assert run(capsys, "diff", one, one)[1] == "same content\n"


def test_verify_says_what_is_wrong_with_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_image(tmp_path, startable()).file
    assert run(capsys, "verify", image)[0] == 0
    image.write_bytes(image.read_bytes()[:-20])
    code, out, _ = run(capsys, "verify", image)
    assert code == 1 and "damaged" in out
    lacking = write_image(tmp_path, without(startable(), "proc")).file
    code, out, _ = run(capsys, "verify", lacking, "--json")
    assert code == 1 and "no /proc" in json.loads(out)["verdict"]


def test_verify_holds_an_image_against_its_sidecar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    image = write_image(tmp_path, startable()).file
    other = write_image(tmp_path / "other", without(startable(), "dev/null")).file
    image.write_bytes(other.read_bytes())
    code, out, _ = run(capsys, "verify", image)
    assert code == 1 and "belongs to another build" in out
    sidecar_path(image).unlink()
    code, out, _ = run(capsys, "verify", image)
    assert code == 0 and "IMAGE.json is not beside it" in out


def test_a_bundle_is_made_shown_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "device.toml").write_bytes(EXAMPLE.read_bytes())
    (tmp_path / "rootfs.squashfs").write_bytes(b"hsqs" + bytes(600_000))
    assert run(capsys, "key", "new", tmp_path / "root.key")[0] == 0
    code, out, err = run(
        capsys, "bundle", "create", "-c", tmp_path / "device.toml", "--image", tmp_path / "rootfs.squashfs",
        "--version", "2", "--version-name", "2.0", "--kernel-release", "6.1.0", "--key", tmp_path / "root.key",
        "-o", tmp_path / "os.ubk",
    )  # fmt: skip
    assert code == 0, err
    assert "2 zero" in out
    facts = json.loads(run(capsys, "info", tmp_path / "os.ubk", "--json")[1])
    assert facts["manifest"]["compatible"] == "unbrick-virtual"
    assert facts["manifest"]["images"][0]["filesystem"] == "squashfs"
    code, out, err = run(capsys, "verify", tmp_path / "os.ubk", "--root", tmp_path / "root.pub")
    assert (code, err) == (0, "") and "an intact bundle" in out


def test_a_bundle_is_verified_with_a_key_only(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "verify", bundle)
    assert code == 1 and "--root root.pub" in err


def test_a_damaged_or_foreign_bundle_is_not_intact(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate_key(bundle.with_name("other.key"), bundle.with_name("other.pub"))
    code, out, _ = run(capsys, "verify", bundle, "--root", bundle.with_name("other.pub"))
    assert code == 1 and "not by a key" in out
    damaged = bytearray(bundle.read_bytes())
    damaged[-100] ^= 1
    bundle.write_bytes(damaged)
    code, out, _ = run(capsys, "verify", bundle, "--root", bundle.with_name("root.pub"))
    assert code == 1 and "frames are damaged" in out


def test_a_file_system_is_found_by_its_magic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "what").write_bytes(bytes(4096))
    code, _, err = run(
        capsys, "bundle", "create", "-c", EXAMPLE, "--image", tmp_path / "what", "--version", "1",
        "--kernel-release", "6", "--key", "x", "-o", tmp_path / "x.ubk",
    )  # fmt: skip
    assert code == 1 and "holds no squashfs, erofs, ext4" in err and "found by the magic number" in err


def test_a_journal_is_shown_from_copies_and_from_a_disk(
    copies: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "journal", "show", *copies)
    assert code == 0
    assert out.startswith("INTACT: copies intact, intact, intact") and "E103" in out
    shown = json.loads(run(capsys, "journal", "show", *copies, "--json")[1])
    assert [record["state"] for record in shown["history"]] == ["CONFIRMED", "CONFIRMED", "SUSPECT"]
    text = EXAMPLE.read_text()
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1048576))
    for number, offset in enumerate((1048576, 1074790400, 2144337920)):
        text = text.replace(f"{{offset = {offset}, size = 1048576}}", f"{{offset = {offset}, size = 65536}}")
        with disk.open("r+b") as stream:
            stream.seek(offset)
            stream.write(copies[number].read_bytes())
    (tmp_path / "device.toml").write_text(text)
    code, from_disk, err = run(capsys, "journal", "show", disk, "-c", tmp_path / "device.toml")
    assert (code, from_disk) == (0, out), err


def test_one_copy_is_recognised_as_a_journal(copies: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(run(capsys, "info", copies[0], "--json")[1])
    assert (facts["type"], facts["records"]) == ("journal", 3)
    assert run(capsys, "verify", copies[0])[0] == 0


def test_a_journal_of_random_bytes_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "copy").write_bytes(b"x" * 65536)
    code, _, err = run(capsys, "journal", "show", tmp_path / "copy")
    assert code == 1 and "no record of a journal" in err


def test_replay_explains_each_step_by_the_table(copies: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "replay", *copies)
    assert code == 0
    assert "recovery_requested" in out.splitlines()[1]
    assert out.splitlines()[-1] == "2 steps, 0 that the table does not explain"


def test_a_step_that_the_table_does_not_have_is_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    regions = [FileRegion(64 * 1024) for _ in range(3)]
    store = Store(regions, bytes(16))
    store.open()
    for state in ("WAITING", "ACTIVATING"):
        store.append(Record(state).encode())
    (tmp_path / "copy").write_bytes(regions[0].data)
    code, out, _ = run(capsys, "replay", tmp_path / "copy")
    assert code == 1 and "NO EVENT OF THE TABLE" in out


def test_states_prints_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(run(capsys, "states", "--json")[1])
    assert document["boots_max"] > 0 and document["table"]
    assert f"K = {document['boots_max']}" in run(capsys, "states")[1]
    assert run(capsys, "states", "--markdown")[1].startswith("# The state machine")
    assert run(capsys, "states", "--reasons")[1].startswith("# Reasons")


def test_boot_prints_a_command_line_that_runs_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("image", "kernel", "disk"):
        (tmp_path / name).write_bytes(b"x")
    code, out, err = run(capsys, "boot", tmp_path / "image", "--kernel", tmp_path / "kernel", "--print",
                         "--disk", f"{tmp_path}/disk,serial=unbrick-system")  # fmt: skip
    assert code == 0, err
    assert f"-initrd {tmp_path}/image" in out and '"serial": "unbrick-system"' in out and "-serial mon:stdio" in out


@pytest.mark.parametrize(
    ("arguments", "says", "then"),
    [
        (("build", "-c", "absent.toml"), "absent.toml: cannot be read", "Name the device's file"),
        (("ls", "absent.cpio"), "absent.cpio: No such file", ""),
        (("verify", "/etc/passwd"), "is no image, no bundle and no journal", "An image begins with"),
        (("boot", "absent", "--kernel", "absent"), "absent does not exist", ""),
        (("bundle", "create", "--image", "absent", "--version", "1", "--kernel-release", "6", "--key", "absent",
          "-o", "x"), "device.toml: cannot be read", ""),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_the_next_step(
    arguments: tuple[str, ...], says: str, then: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    first, *rest = err.splitlines()
    assert first.startswith("unbrick: ") and says in first
    assert then in "".join(rest) and len(rest) <= 1
    assert "Traceback" in run(capsys, *arguments, "--debug")[2]


def test_a_reader_that_goes_away_is_no_error_to_report(tmp_path: Path) -> None:
    image = write_image(tmp_path, startable()).file
    text = f"{sys.executable} -m unbrick why {image} --json | head -c 1"
    done = subprocess.run(["bash", "-c", text], cwd=ROOT, capture_output=True, check=False, timeout=30)
    assert b"Traceback" not in done.stderr


def test_a_command_line_that_means_nothing_ends_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["frobnicate"], ["ls"], ["ls", "x", "--wrong"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        capsys.readouterr()
