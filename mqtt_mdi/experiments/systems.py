"""The systems that experiments run on: small boards, and the links between them."""

from mqtt_mdi.simulation.scenario import Arrivals, DeviceSpec, Link, Scenario

SPEED = 1e8
"""Multiply-adds a second of a small board."""

LINK = Link(latency_ms=2, bandwidth_mbit=50, jitter_ms=1)

UNEVEN_FIVE = {
    1: (1, 1_200_000, (1, 2, 3, 4)),
    2: (1, 60_000, (1, 2)),
    3: (2, 400_000, (1, 2, 3)),
    4: (4, 850_000, (1, 2, 3)),
    5: (8, 400_000, (1, 2, 3)),
}
"""How many times as fast as a small board, bytes for stages, and the first stages that fit."""


def _system(name: str, devices: tuple[DeviceSpec, ...], topology: str = "mesh") -> Scenario:
    return Scenario.model_validate(
        {
            "name": name,
            "arrivals": Arrivals(kind="saturating"),
            "devices": devices,
            "topology": topology,
            "default_link": LINK,
        }
    )


def _boards(count: int, group: int | None = None) -> tuple[DeviceSpec, ...]:
    """Equal boards; the first is a source, or the first of each group."""
    return tuple(
        DeviceSpec(id=f"node-{n + 1}", macs_per_second=SPEED, source=n % (group or count) == 0)
        for n in range(count)
    )


TOPOLOGIES = (
    _system("local", _boards(1)),
    _system("2 nodes", _boards(2)),
    _system("3-node mesh", _boards(3)),
    _system("3-node circular", _boards(3), "circular"),
    _system("5-node mesh", _boards(5)),
)
"""Those of the published evaluation (arXiv 2408.05247); node-1 takes the frames in and computes, too."""

UNEVEN = _system(
    "uneven five",
    tuple(
        DeviceSpec(id=f"node-{n}", macs_per_second=times * SPEED, memory=memory, stages=stages, source=n == 1)
        for n, (times, memory, stages) in UNEVEN_FIVE.items()
    ),
)
"""Five boards of which only the slowest, the source, has the memory for all of the shipped network."""


def groups(count: int, size: int = 5) -> Scenario:
    """Meshes of `size` equal boards each, that do not know each other; the first of each is a source."""
    return _system(f"{count:,} devices", _boards(count, size), "groups").model_copy(update={"group": size})
