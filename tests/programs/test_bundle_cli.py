"""The verbs of bundles as a person meets them: create with several images, info, verify, extract."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from payload.create import BundleInput, ImageInput, create
from payload.signing_key import load_signing_key
from tests.programs import desk as any_desk
from tests.programs.desk import EXAMPLE
from tests.unit.filesystem_samples import NEEDS_RECOVERY, ext4, squashfs
from tests.unit.payload_samples import FRAME

KERNEL = "6.1.0"
ROOTFS = squashfs(random.Random(1).randbytes(700_000))
MAPS = bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(300_000) + b"maps" * 1000 + bytes(500_000)

pytestmark = pytest.mark.requirement("D6")


class Desk(any_desk.Desk):
    """A folder with device.toml, keys and two images, and the command line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, capsys, monkeypatch)
        (folder / "device.toml").write_text(EXAMPLE.read_text().replace("[kernel]", f'[kernel]\nrelease = "{KERNEL}"'))
        (folder / "rootfs.squashfs").write_bytes(ROOTFS)
        (folder / "maps.erofs").write_bytes(MAPS)

    def create(self, more: str = "--image rootfs.squashfs", code: int = 0, output: str = "os.ubk") -> tuple[str, str]:
        return self.run(f"bundle create --version 2 --kernel-release {KERNEL} --key root.key -o {output} {more}", code)

    def damage(self, position: int) -> None:
        content = bytearray((self.folder / "os.ubk").read_bytes())
        content[position] ^= 1
        (self.folder / "os.ubk").write_bytes(content)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, capsys, monkeypatch)


TWO = (
    "--image rootfs.squashfs --image maps=maps.erofs --kind maps=read-write --init maps=/none --watchdog-owner systemd"
)


def test_several_images_each_with_its_own_facts(desk: Desk) -> None:
    desk.create(TWO)
    rootfs, maps = desk.facts("bundle info os.ubk")["manifest"]["images"]
    assert (rootfs["slot-class"], rootfs["filesystem"], rootfs["kind"]) == ("rootfs", "squashfs", "immutable")
    assert (maps["slot-class"], maps["filesystem"], maps["kind"]) == ("maps", "erofs", "read-write")
    assert (rootfs["init"], maps["init"]) == ("/sbin/init", "/none")
    assert rootfs["watchdog-owner"] == maps["watchdog-owner"] == "systemd"


def test_the_same_command_makes_the_same_bytes(desk: Desk) -> None:
    desk.create(TWO)
    desk.create(TWO, output="again.ubk")
    assert (desk.folder / "os.ubk").read_bytes() == (desk.folder / "again.ubk").read_bytes()


@pytest.mark.parametrize(
    ("options", "says", "then"),
    [
        ("--image rootfs.squashfs --image maps.erofs", "--image is there twice for rootfs", "--image CLASS=maps.erofs"),
        ("--image a=rootfs.squashfs --kind b=immutable", "no --image for b", "Images are given for: a."),
        ("--image rootfs.squashfs --kind frozen", "--kind frozen", "immutable, read-write"),
        ("--image rootfs.squashfs --kind immutable --kind read-write", "--kind is there twice for every class", ""),
        ("--image rootfs=absent", "absent: No such file", ""),
        ("--image ../x=y.squashfs", "../x=y.squashfs: No such file", ""),
        ("--image short.squashfs", "short.squashfs is cut short", "Copy it again"),
        ("--image open.ext4", "open.ext4 has a journal that is to be replayed", "e2fsck -fy open.ext4"),
        ("--image rootfs.squashfs --filesystem ext4", "holds no ext4, but squashfs", "leave --filesystem out"),
    ],
)
def test_what_cannot_be_made_is_said_with_a_next_step(desk: Desk, options: str, says: str, then: str) -> None:
    (desk.folder / "short.squashfs").write_bytes(ROOTFS[:-1])
    (desk.folder / "open.ext4").write_bytes(ext4(bytes(8192), features=NEEDS_RECOVERY))
    _out, err = desk.create(options, code=1)
    assert says in err and then in err
    assert not (desk.folder / "os.ubk").exists()


def test_a_slot_that_may_be_written_takes_a_journal_that_is_to_be_replayed(desk: Desk) -> None:
    (desk.folder / "open.ext4").write_bytes(ext4(bytes(8192), features=NEEDS_RECOVERY))
    desk.create("--image open.ext4 --kind read-write --filesystem ext4")
    assert desk.facts("bundle info os.ubk")["manifest"]["images"][0]["filesystem"] == "ext4"


def test_info_tells_people_everything_and_believes_nothing(desk: Desk) -> None:
    desk.create(TWO)
    out, err = desk.run("bundle info os.ubk")
    assert err == ""
    for word in (
        "version 2",
        "'unbrick-virtual'",
        f"kernel     {KERNEL}",
        "2027-01-15",
        "signed by  key ",
        "maps: erofs",
    ):
        assert word in out
    assert "of 262144 bytes: 0 zero, 3 raw, 0 zstd" in out
    assert out.splitlines()[-1].startswith("Nothing of this is believed here")


def test_info_gives_programs_sizes_kinds_and_ratio(desk: Desk) -> None:
    desk.create(TWO)
    facts = desk.facts("bundle info os.ubk")
    assert facts["believed"] is False
    rootfs, maps = facts["images"]
    assert rootfs["frames"] == {"zero": 0, "raw": 3, "zstd": 0} and rootfs["stored_ratio"] == 1.0
    assert maps["frames"] == {"zero": 2, "raw": 0, "zstd": 2} and maps["stored_ratio"] < 0.01
    assert facts["bytes"] == facts["bytes_needed"] == (desk.folder / "os.ubk").stat().st_size
    assert facts["bytes"] == facts["header_bytes"] + rootfs["stored_bytes"] + maps["stored_bytes"]
    assert facts == desk.facts("info os.ubk")


def test_info_says_that_a_file_is_cut_short(desk: Desk) -> None:
    desk.create()
    path = desk.folder / "os.ubk"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "cut short: 1000 more are needed" in desk.run("bundle info os.ubk")[0]


def test_info_shows_the_roots_that_a_bundle_carries(desk: Desk) -> None:
    device = desk.folder / "device.toml"
    device.write_text(device.read_text().replace('"root.pub"', '"device.roots"'))
    for name in ("alice", "bob", "build"):
        desk.run(f"key new {name}.key")
    desk.run("key root device.roots --root-key alice.pub --root-key bob.pub --root-threshold 2 --bundle-key build.pub"
             " --key alice.key --key bob.key")  # fmt: skip
    desk.run("bundle create --version 2 --kernel-release 6.1.0 --image rootfs.squashfs --key build.key"
             " --roots device.roots -o os.ubk")  # fmt: skip
    root = desk.facts("bundle info os.ubk")["roots"][0]
    assert (root["version"], root["root-threshold"], len(root["root-keys"]), len(root["signed-by"])) == (1, 2, 2, 2)
    assert "root 1     1 of 1 keys sign bundles, 2 of 2 sign roots" in desk.run("bundle info os.ubk")[0]
    assert desk.facts("bundle verify os.ubk --root device.roots")["root"] == 1


def test_verify_with_the_key_with_the_device_and_by_either_name(desk: Desk) -> None:
    desk.create(TWO)
    for line in ("bundle verify os.ubk --root root.pub", "bundle verify os.ubk -c device.toml",
                 "verify os.ubk --root root.pub", "verify os.ubk -c device.toml"):  # fmt: skip
        facts = desk.facts(line)
        assert (facts["intact"], facts["reason"], facts["version"], facts["frames"]) == (True, "none", 2, 7)
    assert "an intact bundle of version 2" in desk.run("bundle verify os.ubk --root root.pub")[0]


def test_a_damaged_frame_is_named_with_its_reason_and_what_to_do(desk: Desk) -> None:
    desk.create()
    desk.damage(-FRAME)
    facts = desk.facts("bundle verify os.ubk --root root.pub", code=1)
    assert facts["reason"] == "payload-corrupt"
    assert [(one["slot_class"], one["frame"]) for one in facts["damaged"]] == [("rootfs", 2)]
    out, _err = desk.run("bundle verify os.ubk --root root.pub", code=1)
    assert "1 of 3 frames are damaged" in out and "E403 payload-corrupt. What to do: Copy the payload again." in out


@pytest.mark.parametrize(
    ("option", "reason"),
    [("--root other.pub", "payload-wrong-key"), ("-c other.toml", "payload-wrong-compatible"),
     ("-c kernel.toml", "payload-kernel-mismatch"), ("-c floor.toml", "payload-below-floor")],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["bundle verify", "verify"])
def test_what_a_device_refuses_has_the_devices_reason(desk: Desk, verb: str, option: str, reason: str) -> None:
    desk.create()
    desk.run("key new other.key")
    device = (desk.folder / "device.toml").read_text()
    (desk.folder / "other.toml").write_text(device.replace("unbrick-virtual", "another"))
    (desk.folder / "kernel.toml").write_text(device.replace(f'"{KERNEL}"', '"6.2.0"'))
    (desk.folder / "floor.toml").write_text("floor = 3\n" + device)
    facts = desk.facts(f"{verb} os.ubk {option}", code=1)
    assert (facts["intact"], facts["reason"]) == (False, reason)


SLOT = "{offset = 274726912, size = 268435456}"
HEADERS = ("{offset = 270532608, size = 1048576}", "{offset = 2142240768, size = 1048576}")
# what is changed in device.toml, what the device then says, and what `bundle create` says of it
TOO_SMALL = {
    "slot": ({SLOT: "{offset = 274726912, size = 696320}"}, "target-too-small", "the slot has 696320"),
    "headers": (
        {SLOT: "{offset = 274726912, size = 1048576}"} | {text: text.replace("1048576}", "4096}") for text in HEADERS},
        "payload-too-large",
        "the region that keeps it 4096",
    ),
    "kernel": ({f'"{KERNEL}"': '"6.2.0"'}, "payload-kernel-mismatch", "for kernel 6.1.0, the device has 6.2.0"),
    "floor": ({"compatible =": "floor = 3\ncompatible ="}, "payload-below-floor", "version 2 is below the floor 3"),
}


def changed_device(desk: Desk, changes: dict[str, str]) -> None:
    text = (desk.folder / "device.toml").read_text()
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    (desk.folder / "changed.toml").write_text(text)


def with_a_large_header(desk: Desk) -> str:
    """Options for a bundle whose frame tables need more than 4096 bytes."""
    with (desk.folder / "maps.erofs").open("r+b") as file:
        file.truncate(100 * 262144)
    return "--image rootfs.squashfs --image maps=maps.erofs"


@pytest.mark.parametrize("case", TOO_SMALL)
def test_what_does_not_fit_the_device_is_neither_made_nor_taken(desk: Desk, case: str) -> None:
    changes, reason, says = TOO_SMALL[case]
    images = with_a_large_header(desk)
    changed_device(desk, changes)
    _out, err = desk.create(f"-c changed.toml {images}", code=1)
    assert says in err and "\n  " in err and not (desk.folder / "os.ubk").exists()
    desk.create(images)
    facts = desk.facts("bundle verify os.ubk -c changed.toml", code=1)
    assert (facts["intact"], facts["reason"]) == (False, reason)
    assert desk.facts("bundle verify os.ubk -c device.toml")["intact"]


def test_a_bundle_that_no_place_can_keep_is_told_and_no_reason_to_refuse(desk: Desk) -> None:
    desk.create()
    bundle_bytes = (desk.folder / "os.ubk").stat().st_size
    place = "{offset = 2097152, size = 268435456}"
    for size, spare, kept in ((bundle_bytes, 0, True), (bundle_bytes - 4096, 0, False), (4096, bundle_bytes, True)):
        line = f"\nspare = {{offset = 104857600, size = {spare}}}" if spare else ""
        changed_device(desk, {place: place.replace("268435456", str(size)) + line})
        facts = desk.facts("bundle verify os.ubk -c changed.toml")
        assert facts["intact"] and facts["kept"] == kept
        assert ("no place of the device keeps it" in facts["verdict"]) == (not kept)
    facts = desk.facts("bundle verify os.ubk --root root.pub")
    assert "kept" not in facts and "keeps it" not in facts["verdict"]


def test_a_bundle_without_an_operating_system_is_neither_made_nor_taken(desk: Desk) -> None:
    _out, err = desk.create("--image maps=maps.erofs", code=1)
    assert "no image for slot class 'rootfs'" in err and "--image rootfs=FILE" in err
    images = (ImageInput(desk.folder / "maps.erofs", "erofs", "maps"),)
    key = load_signing_key(desk.folder / "root.key", lambda _path: b"")
    create(BundleInput("unbrick-virtual", 2, "2", KERNEL, images), key, desk.folder / "os.ubk")
    assert desk.facts("bundle verify os.ubk --root root.pub")["intact"]
    assert desk.facts("bundle verify os.ubk -c device.toml", code=1)["reason"] == "payload-format"


def test_the_floor_of_a_root_counts_when_a_bundle_is_made(desk: Desk) -> None:
    desk.run("key root device.roots --root-key root.pub --bundle-key root.pub --floor 3 --key root.key")
    changed_device(desk, {'"root.pub"': '"device.roots"'})
    _out, err = desk.create("-c changed.toml --image rootfs.squashfs --roots device.roots", code=1)
    assert "version 2 is below the floor 3" in err


@pytest.mark.parametrize(("releases", "code"), [(("6.1.0",), 0), (("6.2.0",), 1), (("6.2.0", "6.3.0"), 0), ((), 0)])
def test_a_folder_with_one_kernel_says_which_one_the_device_has(
    desk: Desk, releases: tuple[str, ...], code: int
) -> None:
    for release in releases:
        (desk.folder / "linux/lib/modules" / release).mkdir(parents=True)
    changed_device(desk, {f'release = "{KERNEL}"': "", 'package = "linux-image-amd64"': 'path = "linux"'})
    desk.create("-c changed.toml --image rootfs.squashfs", code)
    desk.create()
    assert desk.run("bundle verify os.ubk -c changed.toml", code)


@pytest.mark.parametrize("verb", ["bundle verify os.ubk", "verify os.ubk", "bundle extract os.ubk -o out"])
def test_nothing_is_judged_without_a_root(desk: Desk, verb: str) -> None:
    desk.create()
    _out, err = desk.run(verb, code=1)
    assert "who is to believe it" in err and "--root root.pub" in err


@pytest.mark.parametrize(("slot_class", "image"), [("rootfs", ROOTFS), ("maps", MAPS)])
def test_an_extracted_image_is_the_image(desk: Desk, slot_class: str, image: bytes) -> None:
    desk.create(TWO)
    facts = desk.facts(f"bundle extract os.ubk --root root.pub --image {slot_class} -o out")
    content = (desk.folder / "out").read_bytes()
    assert content[: len(image)] == image and not any(content[len(image) :]) and len(content) % FRAME == 0
    assert facts["bytes"] == len(content)


def test_blocks_of_zeroes_are_holes(desk: Desk) -> None:
    desk.create("--image rootfs.squashfs --image maps=maps.erofs")
    desk.run("bundle extract os.ubk --root root.pub --image maps -o out")
    assert (desk.folder / "out").stat().st_blocks * 512 <= 16 * 1024 < len(MAPS)


def test_which_of_several_images_has_to_be_said(desk: Desk) -> None:
    desk.create(TWO)
    for option in ("", "--image absent"):
        _out, err = desk.run(f"bundle extract os.ubk --root root.pub -o out {option}", code=1)
        assert "Name one with --image: rootfs, maps." in err


@pytest.mark.parametrize("position", [100, -FRAME], ids=["header", "frame"])
def test_a_damaged_bundle_leaves_the_old_file(desk: Desk, position: int) -> None:
    desk.create()
    desk.damage(position)
    (desk.folder / "out").write_bytes(b"before")
    _out, err = desk.run("bundle extract os.ubk --root root.pub -o out", code=1)
    assert "payload-corrupt" in err and "bundle verify os.ubk" in err
    assert (desk.folder / "out").read_bytes() == b"before"
    assert not list(desk.folder.glob(".out*"))


@pytest.mark.parametrize(
    ("line", "says"),
    [("bundle info absent.ubk", "absent.ubk: No such file"), ("bundle info root.pub", "no bundle starts here"),
     ("bundle verify os.ubk --root os.ubk", "os.ubk"),
     ("bundle extract os.ubk --root absent -o out", "absent: No such file"),
     ("bundle serve absent", "absent: No such file"), ("bundle serve os.ubk --port 70000", "70000 is no port")],
)  # fmt: skip
def test_errors_name_the_file(desk: Desk, line: str, says: str) -> None:
    desk.create()
    _out, err = desk.run(line, code=1)
    assert err.startswith("unbrick: ") and says in err and "Traceback" not in err


def test_the_delta_part_is_made_shown_and_judged(desk: Desk) -> None:
    desk.create(output="old.ubk")
    made = desk.facts(f"bundle create --version 3 --kernel-release {KERNEL} --key root.key -o os.ubk"
                      " --image rootfs.squashfs --from old.ubk --units")  # fmt: skip
    facts = desk.facts("bundle info os.ubk")
    delta = facts["images"][0]["delta"]
    assert delta["units"] and delta["old_versions"] == [desk.facts("bundle info old.ubk")["digest"]]
    assert delta["damage"] == [] and delta["index_bytes"] < made["delta_bytes"]
    assert "delta: made from the old version" in desk.run("bundle info os.ubk")[0]
    assert desk.facts("bundle info old.ubk")["images"][0]["delta"]["old_versions"] == []
    assert desk.facts("bundle verify os.ubk --root root.pub")["delta_damaged"] == []


def test_a_damaged_delta_part_is_told_and_no_reason_to_refuse(desk: Desk) -> None:
    desk.create("--image rootfs.squashfs --units")
    needed = desk.facts("bundle info os.ubk")["bytes_needed"]
    desk.damage(-(-needed // FRAME) * FRAME)  # the directory: headers are whole blocks, too
    facts = desk.facts("bundle verify os.ubk --root root.pub")
    assert facts["intact"] and len(facts["delta_damaged"]) == 1
    assert "its delta part is damaged" in desk.run("bundle verify os.ubk --root root.pub")[0]
