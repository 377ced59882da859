"""Every parser that strangers' bytes reach, under millions of inputs: an answer or an own error, in little memory.

The ordinary run mutates blindly, for seconds. The long one is atheris (libFuzzer, guided by coverage; the extra `fuzz`
of pyproject.toml), a process for each target. What it finds is in the failure's last lines, as Base64; put the bytes
into a file, and `python -m tests.fuzz.atheris_run TARGET FILE` plays them again.
"""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from packagemanager.deb import Deb
from packagemanager.phases import FORWARD
from packagemanager.plan_file import decode_phase, decode_plan
from packagemanager.recipe import decode_recipe
from packagemanager.transaction_index import decode_index
from tests.fuzz import package_target
from tests.fuzz.bundle_mutations import mutate_bytes
from tests.fuzz.parser_targets import BUNDLE_TARGETS, INPUT_BYTES_MAX, TAKEN, TARGETS, signatures_hold
from tests.fuzz.transaction_target import BASES, CONTENT_BYTES, MADE
from tests.unit.payload_samples import BytesReader

ROOT = Path(__file__).parents[2]
BLIND_RUNS = 3000
MEMORY_BYTES_MAX = 16 << 20
RSS_MEBIBYTES_MAX = 256
INPUT_SECONDS_MAX = 10
SECONDS_MAX = 3600

pytestmark = pytest.mark.requirement("M6")


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_are_answered_in_little_memory(name: str) -> None:
    target = TARGETS[name]
    chance = random.Random(name)
    corpus = target.seeds()
    with signatures_hold():
        tracemalloc.start()
        try:
            for _run in range(BLIND_RUNS):
                data = chance.choice(corpus)
                for _change in range(chance.choice((0, 1, 1, 2, 4))):
                    data = (target.mutate if chance.random() < 0.6 else mutate_bytes)(data, chance)
                target.check(data[:INPUT_BYTES_MAX])
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < MEMORY_BYTES_MAX


def test_headers_and_tables_get_ten_million() -> None:
    assert sum(target.runs for target in BUNDLE_TARGETS.values()) >= 10_000_000


def test_the_fuzzer_begins_with_bundles_that_are_taken() -> None:
    """Else it would never come past the signatures."""
    before = TAKEN["header"]
    seeds = TARGETS["header"].seeds()
    with signatures_hold():
        for seed in seeds:
            TARGETS["header"].check(seed)
    assert TAKEN["header"] - before >= len(seeds) // 2


def test_the_fuzzer_begins_with_packages_that_are_read() -> None:
    assert all(package_target.entries(seed, 300) for seed in TARGETS["tar"].seeds())
    assert all(Deb(BytesReader(seed)).control() for seed in TARGETS["deb"].seeds())


def test_the_fuzzer_begins_with_plans_and_transactions_that_are_read() -> None:
    plan, phase = map(package_target.sealed, TARGETS["plan"].seeds())
    assert decode_plan(plan).operations and decode_phase(phase)[0] == FORWARD
    indexes = [decode_index(seed, CONTENT_BYTES) for seed in TARGETS["transaction-index"].seeds()]
    assert indexes[0].parts
    recipes = [decode_recipe(seed, BASES, CONTENT_BYTES) for seed in TARGETS["transaction-recipe"].seeds()]
    assert any(base.frames for recipe in recipes for base in recipe.bases)


def test_the_fuzzer_begins_with_a_recipe_that_makes_its_package() -> None:
    """Else nothing would ever come out of one."""
    before = MADE["packages"]
    for seed in TARGETS["transaction-recipe"].seeds():
        TARGETS["transaction-recipe"].check(seed)
    assert MADE["packages"] > before


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_millions_of_inputs_are_answered(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.fail("atheris is not installed: pip install -e '.[fuzz]' (scripts/test --all does it)")
    options = [
        f"-runs={TARGETS[name].runs}",
        f"-rss_limit_mb={RSS_MEBIBYTES_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}",
        "-seed=1",
    ]
    options += [f"-artifact_prefix={tmp_path}/", "-print_final_stats=1", str(tmp_path / "corpus")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.atheris_run", name, *options],
        cwd=ROOT, capture_output=True, text=True, errors="replace", check=False, timeout=SECONDS_MAX,
    )  # fmt: skip
    last = "\n".join(done.stderr.splitlines()[-40:])
    assert done.returncode == 0, last
    executed = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    assert executed is not None and int(executed[1]) >= TARGETS[name].runs, last
