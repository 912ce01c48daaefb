"""The fault table in short; `make chaos` has it with thousands of frames a row."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.faults import FAULTS, Fault, run, strike, world_for
from chaos.world import World

import mqtt_mdi

if shutil.which("mosquitto") is None:
    pytest.skip("no mosquitto on PATH: apt-get install mosquitto", allow_module_level=True)

FRAMES = 300
ALONE = [fault for fault in FAULTS if fault.persistence or fault.emulate]
TOGETHER = [fault for fault in FAULTS if fault not in ALONE]

WALL_CLOCK = {
    "runtime/certificates.py": "from when and until when a certificate holds",
    "runtime/coordinator.py": "when a row was stored",
    "runtime/shell.py": "the name of a start",
    "runtime/spooled.py": "when a frame was captured",
}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with world_for(*TOGETHER) as world:
        yield world


@pytest.mark.parametrize("fault", TOGETHER, ids=lambda fault: fault.name)
def test_no_frame_is_lost_or_doubled(world: World, fault: Fault) -> None:
    assert strike(fault, world, FRAMES, short=True).wrong == []


@pytest.mark.parametrize("fault", ALONE, ids=lambda fault: fault.name)
def test_no_frame_is_lost_or_doubled_in_a_world_of_its_own(fault: Fault) -> None:
    assert run(fault, FRAMES, short=True).wrong == []


def test_only_records_read_the_wall_clock() -> None:
    package = Path(mqtt_mdi.__file__).parent
    reads = re.compile(r"\btime\.time\b|\btime_ns\b|\bdatetime\.now\b")
    found = {
        str(path.relative_to(package)) for path in package.rglob("*.py") if reads.search(path.read_text())
    }
    assert found == WALL_CLOCK.keys()
