"""The planner: thresholds, placement and shares for a goal, from what is known of a system."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from time import monotonic
from typing import Literal

from mqtt_mdi.bundle.trace import ExitTrace
from mqtt_mdi.core.system import Plan, System
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.planning.fluid import QUICKLY, Bound, fluid_bound, rate_limit
from mqtt_mdi.planning.frontier import Point, frontier
from mqtt_mdi.planning.placement import Search
from mqtt_mdi.planning.problem import Device, Problem, useful_holders
from mqtt_mdi.planning.reach import reach_shares
from mqtt_mdi.planning.shares import Routing, route

KEEP = 0.03
"""The share of the rate that is given up, at most, for stages to stay where they are."""
FILL = 0.005
"""The share of the rate that devices without stages must bring together to be given some."""
PATIENCE = 0.5
"""The share of the time left that one search may take."""
NEGLIGIBLE = 1e-3
RARELY = 1e-4
"""The share of frames that may get to any stage, even where none of the trace does."""
TOLD = 3
"""Devices whose new stages a reason names."""

Placement = Mapping[str, frozenset[int]]


@dataclass(frozen=True)
class Goal:
    """What a plan is to reach.

    `thresholds`: the highest rate with given thresholds. `accuracy`: the highest rate at an accuracy of
    `value` or more. `rate`: the highest accuracy at `value` frames a second or more.
    """

    kind: Literal["thresholds", "accuracy", "rate"] = "thresholds"
    value: float | None = None


def plan(  # noqa: PLR0913 -- what is known, what is wanted, and how hard to try
    system: System,
    goal: Goal,
    trace: ExitTrace | None,
    thresholds: tuple[float, ...],
    search: Search = QUICKLY,
    *,
    keep: float = KEEP,
) -> Plan:
    """Choose thresholds, place stages and share out tasks.

    Stages stay where they are as long as no other placement is known to bring more than `keep` of the rate
    on top; where another is needed, one that has fewer stages loaded may bring `keep` less than the best.
    The same input gives the same plan, unless the search runs into its time limit, which all of this
    respects to half a second.

    Raises:
        ConfigError: The goal cannot be reached, with what lacks; there is no trace; no frame can be
            processed (see `fluid_bound`), or none of some source; or no placement was found in time.
    """
    if trace is None:
        raise ConfigError("the bundle has no exit trace: without it nobody knows how far frames go")
    needed = goal.value if goal.kind == "rate" and goal.value else 0.0
    planner = _Planner(system, _points(system, goal, trace, thresholds), needed, search)
    chosen = planner.choose(keep)
    point, routing = planner.points[chosen.index], chosen.routing
    made = Plan(
        rate=routing.rate,
        limit=max(planner.limit(chosen.index), routing.rate),
        thresholds=point.thresholds,
        placement=_without_idle(chosen.placement, planner.held, routing.work),
        shares=routing.shares,
        accuracy=None if goal.kind == "thresholds" else point.accuracy,
        work=routing.work,
    )
    return replace(made, reason=_reason(planner.held, made))


def _points(system: System, goal: Goal, trace: ExitTrace, thresholds: tuple[float, ...]) -> tuple[Point, ...]:
    """What there is to choose from, the most accurate first."""
    if goal.kind == "thresholds":
        return (Point(thresholds, 0.0, reach_shares(trace, thresholds), 0.0),)
    points = frontier(trace, [profile.macs for profile in system.profiles])
    if goal.kind == "rate":
        return points
    best, needed = points[0].accuracy, goal.value or 0.0
    if best < needed:
        raise ConfigError(
            f"accuracy {needed:g}: the best this bundle reaches on its trace is {best:.4f}, "
            f"{needed - best:.4f} short"
        )
    return (next(point for point in reversed(points) if point.accuracy >= needed),)


@dataclass(frozen=True)
class _Choice:
    """A point by its index, a placement and how tasks are shared out."""

    index: int
    placement: Placement
    routing: Routing


class _Planner:
    """A system, points from the most accurate to the cheapest, and a rate that is needed."""

    def __init__(self, system: System, points: Sequence[Point], needed: float, search: Search) -> None:
        self.points = points
        self.needed = needed
        self.search = search
        self.end = monotonic() + search.time_limit_s
        self.held: Placement = {member.device: member.stages for member in system.members}
        self.problem = _problem(system, points[0].reach)
        self.limits: dict[int, float] = {}
        _check_sources(self.problem)

    def choose(self, keep: float) -> _Choice:
        """Leave stages where they are if that is good enough, else find a better placement."""
        top = min(self._first(0, self.limit), len(self.points) - 1)
        if stays := self._stay(top, self.limit(top) * (1 - keep)):
            return stays
        best = self._best(top)
        enough = best.routing.rate * (1 - keep)
        return self._stay(best.index, enough) or self._calmer(best, enough) or best

    def limit(self, index: int) -> float:
        """A rate that no placement exceeds at a point."""
        if index not in self.limits:
            self.limits[index] = rate_limit(self._at(index))
        return self.limits[index]

    def _stay(self, index: int, enough: float) -> _Choice | None:
        """What is held, with stages for devices that have none, if that brings enough at a point.

        The choice is for that point, or for the next that keeps up with the rate needed.
        """
        if not any(self.held.values()):
            return None
        placement, rate = self.held, self._rate(index, self.held)
        if not all(self.held.values()):
            fixed = (
                replace(device, stages=self.held[device.name] or None) for device in self.problem.devices
            )
            filled = self._place(index, fixed)
            more = self._rate(index, filled) if filled else 0.0
            if filled and more > rate * (1 + FILL):
                placement, rate = filled, more
        return self._carried(index, placement) if rate > 0 and rate >= enough else None

    def _best(self, top: int) -> _Choice:
        """Place for a point, then for the one that this placement keeps up with, until they are the same."""
        best: _Choice | None = None
        index, last = top, len(self.points) - 1
        tried: set[int] = set()
        while index not in tried and (best is None or monotonic() < self.end):
            tried.add(index)
            try:
                bound = fluid_bound(self._at(index), self._quickly())
            except ConfigError:
                if best is None:
                    raise
                break
            self.limits[index] = min(bound.limit, self.limit(index))
            placement = self._with_held(bound)
            found = self._carried(top, placement)
            if found and (best is None or found.index < best.index):
                best = found
            index = best.index if best else last
        if best is None:
            rate, accuracy = self._rate(last, placement), self.points[last].accuracy
            raise ConfigError(
                f"rate {self.needed:g} frames/s: these devices reach {rate:.1f} at accuracy {accuracy:.4f}, "
                f"{self.needed - rate:.1f} short"
            )
        return best

    def _calmer(self, best: _Choice, enough: float) -> _Choice | None:
        """A placement with fewer stages to load where there are others, which brings enough, too."""
        if not any(self.held.values()):
            return None
        loaded = (replace(device, loaded=self.held[device.name]) for device in self.problem.devices)
        placement = self._place(best.index, loaded)
        if placement is None or self._disturbed(placement) >= self._disturbed(best.placement):
            return None
        routing = self._routing(best.index, placement)
        if routing is None or routing.rate < max(enough, self.needed):
            return None
        return _Choice(best.index, placement, routing)

    def _disturbed(self, placement: Placement) -> int:
        """How many stages are to be loaded by devices that have some."""
        return sum(len(placement[name] - stages) for name, stages in self.held.items() if stages)

    def _carried(self, start: int, placement: Placement) -> _Choice | None:
        """The most accurate point from `start` on where a placement keeps up with the rate needed."""
        index = self._first(start, lambda index: self._rate(index, placement))
        while index < len(self.points):
            routing = self._routing(index, placement)
            if routing is not None and routing.rate >= self.needed:
                return _Choice(index, placement, routing)
            index += 1
        return None

    def _first(self, start: int, rate: Callable[[int], float]) -> int:
        """The first point from `start` on with the rate needed: the cheaper a point, the higher its rate."""
        low, high, end = start, start, len(self.points)
        while high < end and rate(high) < self.needed:
            low, high = high + 1, start + 2 * (high - start) + 1
        between = range(low, min(high, end))
        return low + bisect_left(between, self.needed, key=rate)

    def _place(self, index: int, devices: Iterable[Device]) -> Placement | None:
        """None where the stages do not fit or the time is over."""
        try:
            return self._with_held(fluid_bound(self._at(index, devices), self._quickly()))
        except ConfigError:
            return None

    def _quickly(self) -> Search:
        return replace(self.search, time_limit_s=PATIENCE * max(0.0, self.end - monotonic()))

    def _with_held(self, bound: Bound) -> Placement:
        """What each device needs, and of what it holds all that fits and that it is not to pass on."""
        passed = {(to, k) for (_, to), rates in bound.flows.items() for k, r in enumerate(rates, 1) if r}
        placement = {}
        for device in self.problem.devices:
            kept = set(bound.placement[device.name])
            for stage in sorted(k for k in self.held[device.name] if (device.name, k) not in passed):
                needed = sum(self.problem.stage_bytes[k - 1] for k in {*kept, stage})
                if needed <= (inf if device.memory is None else device.memory):
                    kept.add(stage)
            placement[device.name] = frozenset(kept)
        return placement

    def _rate(self, index: int, placement: Placement) -> float:
        """The bound of a placement at a point, 0 where it cannot be."""
        try:
            return rate_limit(self._placed(index, placement))
        except ConfigError:
            return 0.0

    def _routing(self, index: int, placement: Placement) -> Routing | None:
        """How tasks are shared out with a placement, None where it cannot be."""
        try:
            problem = self._placed(index, placement)
        except ConfigError:
            return None
        return route(problem, fluid_bound(problem))

    def _placed(self, index: int, placement: Placement) -> Problem:
        devices = (replace(device, stages=placement[device.name]) for device in self.problem.devices)
        problem = self._at(index, devices)
        _check_sources(problem)
        return problem

    def _at(self, index: int, devices: Iterable[Device] = ()) -> Problem:
        devices = tuple(devices) or self.problem.devices
        reach = tuple(max(share, RARELY) for share in self.points[index].reach)
        return replace(self.problem, reach=reach, devices=devices)


def _problem(system: System, reach: tuple[float, ...]) -> Problem:
    """The fluid bound's problem: raw frames may be shipped, stages are to be placed."""
    return Problem(
        devices=tuple(Device(member.device, member.seconds, member.memory) for member in system.members),
        sources=tuple(member.device for member in system.members if member.source),
        reach=reach,
        input_bytes=tuple(float(profile.input_bytes) for profile in system.profiles),
        stage_bytes=tuple(float(profile.memory) for profile in system.profiles),
        links=system.links,
        even_sources=True,
        holders_run=True,
    )


def _check_sources(problem: Problem) -> None:
    """Raises ConfigError when the frames of one source cannot pass all stages."""
    for source in problem.sources:
        useful_holders(replace(problem, sources=(source,)))


def _without_idle(
    placement: Placement, held: Placement, work: Mapping[str, Sequence[float]]
) -> dict[str, tuple[int, ...]]:
    """A placement without stages that would be loaded for no work."""
    return {
        name: tuple(sorted(k for k in stages if k in held[name] or work[name][k - 1]))
        for name, stages in placement.items()
    }


def _reason(held: Placement, plan: Plan) -> str:
    at = "" if plan.accuracy is None else f" at accuracy {plan.accuracy:.3f}"
    below = 1 - plan.rate / plan.limit
    limit = "the most possible" if below < NEGLIGIBLE else f"{below:.1%} below the proven limit"
    loads = {name: [k for k in stages if k not in held[name]] for name, stages in plan.placement.items()}
    told = [f"{name} gets stages {','.join(map(str, some))}" for name, some in loads.items() if some]
    more = [f"{len(told) - TOLD} other devices get stages, too"] if len(told) > TOLD else []
    return f"{plan.rate:.1f} frames/s{at}, {limit}; {', '.join([*told[:TOLD], *more]) or 'no stage moves'}"
