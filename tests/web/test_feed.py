"""One stream for all who watch, and what flows on a link."""

import asyncio
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_mdi.core.types import DeviceState, Echo
from mqtt_mdi.web import feed
from mqtt_mdi.web.feed import Feed
from mqtt_mdi.web.flows import ALL, FEW, Flows


def test_who_is_slow_gets_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PERIOD_S", 0)
    asyncio.run(_be_slow())


async def _be_slow() -> None:
    made = count(1)
    latest = 0
    many = asyncio.Event()

    async def make() -> bytes:
        nonlocal latest
        latest = next(made)
        if latest > 50:
            many.set()
        return str(latest).encode()

    stream = Feed(make, most=1)
    events = stream.events()
    assert await anext(events) == b"1"
    assert stream.full
    await many.wait()
    assert int(await anext(events)) >= latest - 1
    await events.aclose()  # type: ignore[attr-defined]
    assert not stream.full
    stopped = latest
    for _ in range(20):
        await asyncio.sleep(0)
    assert latest <= stopped + 1, "made for nobody"
    stream.close()


def _state(name: str, stamp: float, boot: str = "a", **received: int) -> DeviceState:
    echoes = {sender: Echo(0.0, 0.0, count) for sender, count in received.items()}
    return DeviceState(name, boot, stamp=stamp, echoes=echoes)


@given(st.floats(0, 1e6), st.lists(st.floats(0.05, 2.0), min_size=2, max_size=30))
def test_a_steady_flow_is_told_as_it_is(rate: float, steps: list[float]) -> None:
    flows, stamp, told = Flows(), 0.0, {}
    for step in steps:
        stamp += step
        told = flows.take((_state("a", stamp), _state("b", stamp, a=round(rate * stamp))))
    assert told["a", "b"] == pytest.approx(rate, rel=1e-3, abs=1 / min(steps) + 1)


def test_a_device_that_starts_anew_or_goes_has_no_flow() -> None:
    flows = Flows()
    flows.take((_state("a", 1), _state("b", 1, a=1000)))
    assert flows.take((_state("a", 2), _state("b", 2, a=3000))) == {("a", "b"): 2000}
    assert flows.take((_state("a", 3), _state("b", 0.5, "b", a=10))) == {}
    assert flows.take((DeviceState("a", "a", online=False), _state("b", 1.5, "b", a=20))) == {}


def test_of_many_devices_it_tells_what_each_receives() -> None:
    flows = Flows()
    names = [f"d{number}" for number in range(FEW + 1)]

    def states(stamp: float, each: int) -> tuple[DeviceState, ...]:
        return tuple(_state(name, stamp, **dict.fromkeys(names, each)) for name in names)

    assert flows.take(states(1, 0)) == {}
    assert flows.take(states(2, 100)) == {(ALL, name): 100 * len(names) for name in names}
    few = states(3, 200)[:FEW]
    assert flows.take(few) == {}
    assert flows.take(states(4, 300)[:FEW])["d0", "d1"] == 100
