"""Who competes, and which policies each may choose from. All run the same code."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from mqtt_mdi.core.strategies.registry import STRATEGIES
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.experiments.measure import Model
from mqtt_mdi.planning.fluid import fluid_bound
from mqtt_mdi.planning.problem import Problem, useful_holders
from mqtt_mdi.planning.reach import reach_shares
from mqtt_mdi.simulation.bound import problem_of
from mqtt_mdi.simulation.scenario import Scenario

Patch = dict[str, Any]
"""A merge patch on the bundle's policy."""

Placement = dict[str, list[int]]

COMMON: Patch = {"lease_s": 60.0}
"""Nothing gets lost here; a lease that ended while queues are long would only have frames done twice."""

WINDOWS: Mapping[str, tuple[Any, ...]] = {"window": (64, 16, 256), "report_interval_s": (0.02, 0.1)}
QUEUES: Mapping[str, tuple[Any, ...]] = {
    "window": (64, 16, 256),
    "report_interval_s": (0.02,),
    "output_threshold": (8, 0),
    "admission": (
        {"rule": "window"},
        {"rule": "paced", "low": 2, "high": 6},
        {"rule": "paced", "low": 10, "high": 30},
    ),
}
FINER: Mapping[str, tuple[Any, ...]] = {
    "report_interval_s": (0.02, 0.1),
    "output_threshold": (0, 1, 2, 4, 8, 16, 32),
}


@dataclass(frozen=True)
class Contestant:
    """A strategy and what of its policy is tuned for each system.

    First every combination of `grid` is tried, then of the best of these every combination with `fine`.
    `placed` says that its strategy lays no stages out, so that placements are tuned, too. Where it `ships`
    frames, the source's device does without stage 1: raw frames then go to the device with the shortest wait.
    """

    name: str
    strategy: str
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fine: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    placed: bool = False
    ships: bool = False

    def finer(self, policy: Patch) -> list[Patch]:
        """A policy in every combination of `fine`."""
        return [{**policy, **setting} for setting in _combinations(self.fine)]


PLANNER = Contestant("planner", "planner")
MDI_EXIT = Contestant("MDI-Exit", "mdi-exit", QUEUES, FINER, placed=True)
MDI_EXIT_SHIPPED = replace(MDI_EXIT, name="MDI-Exit, frames shipped", ships=True)
NO_EXIT = Contestant("no-exit", "no-exit", QUEUES, FINER, placed=True)
DDI = Contestant("ddi", "ddi", WINDOWS)
PIPELINE = Contestant("pipeline", "pipeline", WINDOWS)
LOCAL = Contestant("local", "local")

CONTESTANTS = (PLANNER, MDI_EXIT, MDI_EXIT_SHIPPED, NO_EXIT, DDI, PIPELINE, LOCAL)
QUICKLY = 1
"""Settings that a quick run tries with each placement."""

STATIC_ONE = "static network, one device"
STATIC_ALL = "static network, all devices"
"""The controls: a smaller network without early exits on the best device, and its bound on all of them."""


def present(names: Iterable[str]) -> list[str]:
    """The contestants among some names, in the order in which they are always shown."""
    there = set(names)
    order = [*(contestant.name for contestant in CONTESTANTS), STATIC_ONE, STATIC_ALL]
    return [name for name in order if name in there]


def choices(contestant: Contestant, scenario: Scenario, model: Model, *, quick: bool) -> list[Patch]:
    """The policies a contestant may choose from in a system: none where it cannot run, few if `quick`."""
    settings = _combinations(contestant.grid)
    places: list[Patch] = [{}]
    if contestant.placed:
        places = [{"placement": place} for place in placements(contestant, scenario, model)]
    if quick:
        settings = settings[:QUICKLY]
    return [
        {**COMMON, "strategy": contestant.strategy, **place, **setting}
        for place in places
        for setting in settings
    ]


def _combinations(grid: Mapping[str, tuple[Any, ...]]) -> list[Patch]:
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def placements(contestant: Contestant, scenario: Scenario, model: Model) -> list[Placement]:
    """Where a contestant's stages could be: the first stages first, the last first, or as the bound has them.

    In each, a source that keeps its frames has stage 1 alone or what it would hold besides; one that ships
    them has nothing or what it would hold but stage 1.
    """
    manifest = model.manifest
    early = STRATEGIES[contestant.strategy].early_exits
    reach = reach_shares(model.known, manifest.thresholds) if early else (1.0,) * manifest.stage_count
    problem = replace(
        problem_of(scenario, manifest, reach, placed_freely=True),
        source_runs_stage_1=not contestant.ships,
    )
    forwards = range(1, manifest.stage_count + 1)
    planned = {name: {int(k) for k in own} for name, own in fluid_bound(problem).placement.items()}
    found: list[Placement] = []
    for filled in (_filled(problem, forwards), _filled(problem, reversed(forwards)), planned):
        for lean in (False, True):
            place = {
                name: sorted(
                    _at_source(own, ships=contestant.ships, lean=lean) if name in problem.sources else own
                )
                for name, own in filled.items()
            }
            if place not in found and _works(problem, place):
                found.append(place)
    return found


def _filled(problem: Problem, stages: Iterable[int]) -> dict[str, set[int]]:
    """Every device takes the stages in this order, as long as they fit."""
    order = list(stages)
    held: dict[str, set[int]] = {}
    for device in problem.devices:
        room = float("inf") if device.memory is None else device.memory
        own = held[device.name] = set()
        for stage in order:
            if problem.stage_bytes[stage - 1] <= room:
                own.add(stage)
                room -= problem.stage_bytes[stage - 1]
    return held


def _at_source(own: set[int], *, ships: bool, lean: bool) -> set[int]:
    if ships:
        return set() if lean else own - {1}
    return {1} if lean else own | {1}


def _works(problem: Problem, place: Placement) -> bool:
    try:
        useful_holders(
            replace(
                problem,
                devices=tuple(replace(each, stages=frozenset(place[each.name])) for each in problem.devices),
            )
        )
    except ConfigError:
        return False
    return True
