"""Simulator against reality: the same scenario on virtual time and over Mosquitto, with emulated boards."""

import measure

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.experiments.parity import compare, slower
from mqtt_mdi.experiments.systems import TOPOLOGIES, UNEVEN
from mqtt_mdi.planning.solve import solver

SECONDS = 25.0
BOARDS = 0.5
"""Slower than in other experiments: all processes share the cores of this machine."""

CASES = [
    ("mdi-exit", "2 nodes"),
    ("mdi-exit", "3-node mesh"),
    ("mdi-exit", "5-node mesh"),
    ("planner", "3-node mesh"),
    ("planner", "uneven five"),
]


def worlds(_rounds: int) -> list[measure.Row]:
    """Frames a second in both worlds, and beside them λ*."""
    systems = {system.name: system for system in (*TOPOLOGIES, UNEVEN)}
    rows: list[measure.Row] = []
    for strategy, name in CASES:
        boards = BOARDS / 2 if name == "uneven five" else BOARDS
        system = slower(systems[name], boards).model_copy(update={"policy": {"strategy": strategy}})
        found = compare(system, SHIPPED_BUNDLE, solver(SHIPPED_BUNDLE), SECONDS)
        rows.append(
            {
                "strategy": strategy,
                "system": name,
                "simulated, frames/s": round(found.simulated, 1),
                "over Mosquitto": round(found.live, 1),
                "ratio": round(found.ratio, 3),
                "λ*": round(found.bound, 1),
                "efficiency": round(found.efficiency, 3),
            }
        )
    return rows
