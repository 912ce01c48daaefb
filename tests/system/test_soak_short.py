"""The soak in short; `make soak` goes on for 200,000 frames and allows 10%."""

from collections import Counter

import pytest
from chaos.soak import MIB, Sample, Soak, run

from mqtt_mdi.runtime.broker import mosquitto_program

if mosquitto_program() is None:
    pytest.skip("no mosquitto: apt-get install mosquitto", allow_module_level=True)

FRAMES = 6000
WARM_UP = 2000
MAY_GROW = 0.12
"""Some 10 MiB while a source meets 2,000 frames: this shows who keeps 5 KiB of each, not a name."""


def test_nothing_is_lost_and_nobody_keeps_what_went_by() -> None:
    assert run(FRAMES, WARM_UP).faults(MAY_GROW) == []


def test_a_soak_tells_what_is_wrong() -> None:
    first = Sample(10, 1.0, {"broker": 10 * MIB, "source-1": 80 * MIB})
    last = Sample(40, 4.0, {"broker": 11 * MIB, "source-1": 90 * MIB})
    soak = Soak(bytearray([1, 1, 2, 0]), Counter({"no answer": 1}), [first, last], stored=2)
    assert soak.answered == 3
    assert soak.faults(0.11) == [
        "1 frames lost",
        "1 frames doubled",
        "1 frames failed",
        "2 frames not in the database",
        "no answer",
        "source-1 grew by 12.5%, 11% are allowed",
    ]
    whole = Soak(bytearray([1, 1]), samples=[first, last], stored=2)
    assert whole.faults(0.13) == []
