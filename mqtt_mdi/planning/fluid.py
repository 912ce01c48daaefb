"""The fluid bound: the highest rate of frames that any policy can keep up on given devices and links.

Queues and delays do not enter: whatever a policy does, in the long run a device has one second a second,
a link its bytes a second, and each stage of each frame was done somewhere. What is left is a linear
programme where the placement is given and a mixed-integer one where it is free, solved with HiGHS.
"""

from dataclasses import dataclass, replace

import numpy as np

from mqtt_mdi.planning.placement import Search, choose_placement, relaxed_limit
from mqtt_mdi.planning.problem import Pair, Problem, useful_holders
from mqtt_mdi.planning.programme import TOLERANCE, Mask, Programme

QUICKLY = Search()
MUCH = 10
"""A scale so many times the rate makes the solver's tolerances coarse."""


@dataclass(frozen=True)
class Bound:
    """The highest rate and one way to reach it, that with the fewest bytes on links.

    `rate` is λ* in frames a second; no placement allows more than `limit`, which is `rate` where the
    placement was given. `work[n][k]` is the rate at which device n runs stage k + 1, `flows[n, m][k]` that
    of its inputs sent from n to m, for links in use. `placement` names each device's stages: as given, else
    those that it works on.
    """

    rate: float
    limit: float
    work: dict[str, tuple[float, ...]]
    flows: dict[Pair, tuple[float, ...]]
    placement: dict[str, tuple[int, ...]]


def fluid_bound(problem: Problem, search: Search = QUICKLY) -> Bound:
    """Solve the fluid bound; where a device's `stages` are None, place them under its memory.

    About half a second for 20 devices and 8 stages; where few links join many devices with little memory,
    the search ends early and `limit` says how much better another placement could be.

    Raises:
        ConfigError: No frame can be processed; names the stage, the path or the bytes that lack. Or no
            placement was found within the time of `search`.
    """
    allowed, limit = _mask(problem), 0.0
    programme = Programme(problem)
    if _must_choose(problem, allowed):
        chosen, limit = choose_placement(problem, programme, allowed, search)
        allowed = _mask(_placed(problem, chosen))
    best = programme.fastest(allowed)
    if best.rate < programme.scale / MUCH:
        programme = Programme(problem, best.rate)
        best = programme.fastest(allowed)
    plan = programme.thriftiest(allowed, best.rate)
    work, flows = (np.where(r > TOLERANCE * programme.scale, r, 0.0) for r in (plan.work, plan.flows))
    return Bound(
        best.rate,
        max(limit, best.rate),
        {device.name: tuple(rates) for device, rates in zip(problem.devices, work.tolist(), strict=True)},
        {pair: tuple(rates) for pair, rates in zip(problem.links, flows.tolist(), strict=True) if any(rates)},
        _placement(problem, allowed, work > 0),
    )


def rate_limit(problem: Problem) -> float:
    """A rate that no placement exceeds, and the very bound where the placement is given.

    Takes a fraction of the time that `fluid_bound` takes, and raises as that does.
    """
    allowed = _mask(problem)
    if _crowded(problem, allowed):
        return relaxed_limit(problem, allowed)
    free = any(device.stages is None for device in problem.devices)
    programme = Programme(problem)
    return programme.ceiling(allowed) if free else programme.fastest(allowed).rate


def _mask(problem: Problem) -> Mask:
    """(N, K): where each stage may be and its inputs can get to."""
    holders = useful_holders(problem)
    return np.array([[device.name in held for held in holders] for device in problem.devices])


def _crowded(problem: Problem, allowed: Mask) -> bool:
    """Whether a free device lacks memory for all that it may hold."""
    needed = allowed @ np.array(problem.stage_bytes)
    pairs = zip(problem.devices, needed, strict=True)
    return any(d.stages is None and d.memory is not None and d.memory < bytes_ for d, bytes_ in pairs)


def _must_choose(problem: Problem, allowed: Mask) -> bool:
    """Whether free devices cannot or should not hold all that they may."""
    free = [device for device in problem.devices if device.stages is None]
    spared = any(device.loaded for device in free) or (problem.holders_run and bool(free))
    return spared or _crowded(problem, allowed)


def _placed(problem: Problem, chosen: Mask) -> Problem:
    """The same system with its placement decided."""
    return replace(
        problem,
        devices=tuple(
            replace(device, memory=None, stages=frozenset((np.flatnonzero(row) + 1).tolist()))
            for device, row in zip(problem.devices, chosen, strict=True)
        ),
    )


def _placement(problem: Problem, allowed: Mask, works: Mask) -> dict[str, tuple[int, ...]]:
    """Stages by device: as given, else where there is work; what nobody works on, where it may be."""
    idle = ~works.any(axis=0)
    used = works | (allowed & idle)
    return {
        device.name: tuple(
            sorted(device.stages) if device.stages is not None else (np.flatnonzero(row) + 1).tolist()
        )
        for device, row in zip(problem.devices, used.tolist(), strict=True)
    }
