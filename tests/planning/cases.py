"""Problems small enough to solve on paper."""

from dataclasses import replace
from itertools import permutations

from mqtt_mdi.planning.problem import Device, Problem

REACH = (1.0, 0.5, 0.25)
SECONDS = (0.01, 0.02, 0.04)
ALONE = 1 / (1.0 * 0.01 + 0.5 * 0.02 + 0.25 * 0.04)
"""Frames a second of one device with these seconds that does everything: 1 / sum(s_k Γ_k)."""


def device(name: str, speed: float = 1.0, **more: object) -> Device:
    """A device `speed` times as fast as SECONDS."""
    return replace(Device(name, tuple(s / speed for s in SECONDS)), **more)  # type: ignore[arg-type]


def problem(*devices: Device, link: float = 1e9, **more: object) -> Problem:
    """Devices that are all linked; frames come in at the first."""
    names = [each.name for each in devices]
    given = {
        "devices": devices,
        "sources": names[:1],
        "reach": REACH,
        "input_bytes": (1000.0, 4000.0, 2000.0),
        "stage_bytes": (100.0, 200.0, 400.0),
        "links": dict.fromkeys(permutations(names, 2), link),
        **more,
    }
    return Problem(**given)  # type: ignore[arg-type]
