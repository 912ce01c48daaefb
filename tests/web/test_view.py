"""What is told of few devices, of many, and of more than there is room for."""

import json
from dataclasses import replace

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Echo
from mqtt_mdi.web.flows import FEW, Flows
from mqtt_mdi.web.view import MOST_TILES, ROWS, View, find, tell

NAMES = [f"d{number:04}" for number in range(2 * MOST_TILES)]


def view(count: int, ages: dict[int, float] | None = None) -> View:
    """Devices that all hear each other, up to FEW of them; each holds two of four stages."""
    echoes = {name: Echo(0.0, 0.0, 10) for name in NAMES[: min(count, FEW)]}
    devices = tuple(
        DeviceState(name, "b", stages=(number % 3 + 1, number % 3 + 2), input_queue=2, echoes=echoes)
        for number, name in enumerate(NAMES[:count])
    )
    policy = Policy(version=1, thresholds=(0.9, 0.9, 0.9), silence_s=3.0)
    heard = tuple((ages or {}).get(number, 0.0) for number in range(count))
    connected = True
    return View(0.0, connected, policy, devices, heard, (1, 2, 3, 4), 10, 0, 0, 0, 0, None, None, None, None)


def told(now: View) -> dict[str, object]:
    return tell(now, Flows().take(now.devices))


def test_few_are_told_in_full_and_more_as_tiles() -> None:
    few, many = told(view(FEW)), told(view(FEW + 1))
    assert (len(few["devices"]), few["tiles"]) == (FEW, [])  # type: ignore[arg-type]
    assert len(few["links"]) == FEW * FEW  # type: ignore[arg-type]
    assert (many["devices"], many["links"]) == ([], [])
    assert many["tiles"][0] == ["d0000", "device", "online", 2, 0]  # type: ignore[index]
    assert few["holders"] == [6, 11, 10, 5]


def test_an_event_grows_no_faster_than_the_devices_and_has_an_end() -> None:
    size = {count: len(json.dumps(told(view(count)))) for count in (100, 1000, MOST_TILES, 2 * MOST_TILES)}
    assert size[1000] < 11 * size[100] < 11 * 100 * 100
    assert size[2 * MOST_TILES] - size[MOST_TILES] < 100


def test_those_in_trouble_are_shown_where_not_all_find_room() -> None:
    last = 2 * MOST_TILES - 1
    now = view(last + 1, {last: 2.0})
    now = replace(now, devices=(*now.devices[:-2], replace(now.devices[-2], online=False), now.devices[-1]))
    tiles = told(now)["tiles"]
    assert [tile[:3:2] for tile in tiles[:3]] == [  # type: ignore[index]
        [NAMES[last - 1], "offline"],
        [NAMES[last], "silent"],
        [NAMES[0], "online"],
    ]
    assert told(now)["roles"] == {"device": [last, last + 1], "source": [0, 0]}
    found = find(now, {}, "D", 0)
    assert (found["found"], len(found["devices"])) == (last + 1, ROWS)
    assert [device["device"] for device in found["devices"][:2]] == [NAMES[last - 1], NAMES[last]]
    assert find(now, {}, "d0007", 0)["found"] == 1
