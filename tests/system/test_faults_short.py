"""The fault table in short; `make chaos` has it with thousands of frames a row."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chaos.faults import FAULTS, Fault, Outcome, run, strike, world_for
from chaos.traffic import Books
from chaos.world import World

import mqtt_mdi
from mqtt_mdi.runtime.broker import mosquitto_program

if mosquitto_program() is None:
    pytest.skip("no mosquitto: apt-get install mosquitto", allow_module_level=True)

FRAMES = 300
ALONE = [fault for fault in FAULTS if fault.persistence or fault.emulate]
TOGETHER = [fault for fault in FAULTS if fault not in ALONE]

PARTS = ("core", "engine", "planning", "runtime", "storage", "wire")
WALL_CLOCK = {
    "runtime/certificates.py": "from when and until when a certificate holds",
    "runtime/coordinator.py": "when a row was stored",
    "runtime/shell.py": "the name of a start",
}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with world_for(*TOGETHER) as world:
        yield world


@pytest.mark.parametrize("fault", TOGETHER, ids=lambda fault: fault.name)
def test_no_frame_is_lost_or_doubled(world: World, fault: Fault) -> None:
    assert strike(fault, world, FRAMES, short=True).wrong == []


@pytest.mark.parametrize(
    "fault",
    # an overload is told by comparing rates
    [pytest.param(fault, id=fault.name, marks=[pytest.mark.alone] * fault.overload) for fault in ALONE],
)
def test_no_frame_is_lost_or_doubled_in_a_world_of_its_own(fault: Fault) -> None:
    assert run(fault, FRAMES, short=True).wrong == []


def test_the_books_tell_what_is_wrong() -> None:
    books = Books()
    books.acknowledged |= {"1", "2", "3", "4", "5"}
    books.refused.add("5")
    for frame, *told in (("1", "a", "a"), ("2", "a", "b"), ("3", "a")):
        books.results[frame] = [{"status": "ok", "label": label} for label in told]
    books.told |= books.results.keys() | books.refused
    fault = FAULTS[0]
    assert Outcome(fault, books, stored=2, seconds=1.0, wrong=[], notes=[]).faults(6) == [
        "1 lost",
        "2 doubled",
        "1 refused",
        "1 not taken by the broker",
        "1 not in the database",
    ]
    explained = Outcome(replace(fault, copies=True), books, stored=3, seconds=1.0, wrong=[], notes=[])
    assert (explained.doubled, books.repeated) == (1, 1)


def test_only_records_read_the_wall_clock() -> None:
    package = Path(mqtt_mdi.__file__).parent
    reads = re.compile(r"\btime\.time\b|\btime_ns\b|\bdatetime\.now\b")
    deciding = [path for part in PARTS for path in (package / part).rglob("*.py")]
    found = {str(path.relative_to(package)) for path in deciding if reads.search(path.read_text())}
    assert found == WALL_CLOCK.keys()
