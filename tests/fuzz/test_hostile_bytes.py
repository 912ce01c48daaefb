"""What fuzzing found once stays mended, and what is nasty stays refused, soon and in little memory."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.corpus import kept, nasty
from fuzz.judge import GREEDY_BYTES, judge
from fuzz.mutations import hostile
from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_valid_bytes_and_what_fuzzing_found(name: str) -> None:
    target = TARGETS[name]
    assert "taken" in {judge(target, seed).said for seed in target.seeds}
    faults = {
        file: verdict.fault for file, data in kept(name).items() if (verdict := judge(target, data)).fault
    }
    assert not faults


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in TARGETS for kind in nasty(name)])
def test_nasty_bytes(name: str, kind: str) -> None:
    data = nasty(name)[kind]()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    verdict = judge(TARGETS[name], data)
    assert verdict.fault is None
    assert resident("VmHWM") - before <= GREEDY_BYTES


def resident(field: str) -> int:
    """Bytes of memory that this process has (VmRSS), or has had at most (VmHWM)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_valid_bytes_changed_a_little(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    assert judge(target, data.draw(hostile([*target.seeds, b""]))).fault is None
