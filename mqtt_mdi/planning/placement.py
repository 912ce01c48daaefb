"""Which device should hold which stage: the programme of the fluid bound with a yes or no for each."""

from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.planning.problem import Device, Pair, Problem
from mqtt_mdi.planning.programme import Floats, Mask, Programme

Block = tuple[Any, Any, Any, Any]
"""Rows of constraints: two matrices beside each other, None for zeros; the least and the most of the rows."""

HUB = ""
_INFEASIBLE = 2


@dataclass(frozen=True)
class Search:
    """How many seconds to look for a placement, and how near to the best suffices, as a share."""

    time_limit_s: float = 1.5
    gap: float = 1e-3


def choose_placement(
    problem: Problem, programme: Programme, allowed: Mask, limit: float, search: Search
) -> tuple[Mask, float]:
    """Place the stages of free devices under their memory, for the highest rate.

    `allowed` (N, K) is where each stage could be if it were alone, `limit` the rate with all of these.
    Returns the best placement found (N, K) and a proven limit of every placement's rate.

    A first search sends all traffic through one hub: fewer flows, so it is fast, and no harder than the
    links. Only where its placement does worse on the links than in that search do they enter another.

    Raises:
        ConfigError: The stages do not fit, with the bytes that lack, or no placement was found in time.
    """
    end = monotonic() + search.time_limit_s
    hub = _through_hub(problem)
    aside = np.zeros((1, problem.stage_count), bool)
    chosen, limit = _search(hub, Programme(hub), np.vstack([allowed, aside]), limit, search)
    best = None if chosen is None else chosen[:-1]
    rate = 0.0 if best is None else programme.fastest(best).rate
    left = end - monotonic()
    if rate < limit * (1 - search.gap) and left > 0:
        other, limit = _search(problem, programme, allowed, limit, replace(search, time_limit_s=left))
        if other is not None and programme.fastest(other).rate > rate:
            best = other
    if best is None:
        raise ConfigError(f"no placement found in {search.time_limit_s:g} s: allow more time")
    return best, limit


def _search(
    problem: Problem, programme: Programme, allowed: Mask, limit: float, search: Search
) -> tuple[Mask | None, float]:
    width, cells = programme.flows.stop, allowed.size
    # A device works at most all the time, and on no more than can come: the tighter, the faster solved.
    most = np.minimum(1 / programme.seconds, limit * programme.reach).ravel() / programme.scale
    occupied, memory = _occupied(problem), _memory(problem)
    blocks: tuple[Block, ...] = (
        (programme.balance, None, 0, 0),
        (programme.loads, None, -np.inf, 1),
        (sparse.eye_array(cells, width, k=programme.work.start), -sparse.diags_array(most), -np.inf, 0),
        (None, occupied, -np.inf, memory),
        (None, _holders(problem), 1, np.inf),
    )
    fixed = np.repeat([device.stages is not None for device in problem.devices], problem.stage_count)
    found = milp(
        np.concatenate([programme.rate_cost(), np.zeros(cells)]),
        integrality=np.repeat([0, 1], [width, cells]),
        bounds=Bounds(
            np.concatenate([np.zeros(width), fixed & allowed.ravel()]),
            np.concatenate([programme.highest(allowed), allowed.ravel()]),
        ),
        constraints=_constraint(blocks),
        options={"time_limit": search.time_limit_s, "mip_rel_gap": search.gap},
    )
    if found.status == _INFEASIBLE:
        raise ConfigError(
            f"the stages do not fit: however placed, the devices that frames can reach lack "
            f"{_missing_bytes(problem, allowed):.0f} bytes of memory to hold each stage once"
        )
    if found.x is None:
        return None, limit
    chosen = found.x[width:].reshape(allowed.shape) > 0.5  # noqa: PLR2004 -- between no and yes
    return chosen, min(limit, -found.mip_dual_bound * programme.scale)


def _through_hub(problem: Problem) -> Problem:
    """The same devices, each linked with one that holds nothing, by all its links' bytes together.

    Whatever the links can carry the hub can, too; there a task takes two hops for one.
    """
    links: dict[Pair, float] = {}
    for (a, b), rate in problem.links.items():
        links[a, HUB] = links.get((a, HUB), 0.0) + rate
        links[HUB, b] = links.get((HUB, b), 0.0) + rate
    hub = Device(HUB, problem.devices[0].seconds, stages=frozenset())
    broker = None if problem.broker is None else 2 * problem.broker
    return replace(problem, devices=(*problem.devices, hub), links=links, broker=broker)


def _missing_bytes(problem: Problem, allowed: Mask) -> float:
    """The least memory that would have to be added for each stage to have a place."""
    devices, cells = len(problem.devices), allowed.size
    free = np.array([device.stages is None for device in problem.devices])
    allowed = allowed | (allowed.any(axis=1) & free)[:, None]
    blocks: tuple[Block, ...] = (
        (_occupied(problem), -sparse.eye_array(devices), -np.inf, _memory(problem)),
        (_holders(problem), None, 1, np.inf),
    )
    found = milp(
        np.repeat([0.0, 1.0], [cells, devices]),
        integrality=np.repeat([1, 0], [cells, devices]),
        bounds=Bounds(0, np.concatenate([allowed.ravel(), np.full(devices, np.inf)])),
        constraints=_constraint(blocks),
    )
    return float(found.fun)


def _occupied(problem: Problem) -> sparse.csr_array:
    return sparse.kron(sparse.eye_array(len(problem.devices)), np.array([problem.stage_bytes]))


def _memory(problem: Problem) -> Floats:
    """Bytes of each device; those that are not free have their stages already."""
    bounded = ((device.memory, device.stages) for device in problem.devices)
    return np.array(
        [np.inf if memory is None or stages is not None else memory for memory, stages in bounded]
    )


def _holders(problem: Problem) -> sparse.csr_array:
    """How many devices hold each stage."""
    return sparse.kron(np.ones((1, len(problem.devices))), sparse.eye_array(problem.stage_count))


def _constraint(blocks: tuple[Block, ...]) -> LinearConstraint:
    matrix = sparse.block_array([[left, right] for left, right, _, _ in blocks], format="csr")
    heights = [(right if left is None else left).shape[0] for left, right, _, _ in blocks]
    least, most = (
        np.concatenate([np.broadcast_to(block[i], n) for block, n in zip(blocks, heights, strict=True)])
        for i in (2, 3)
    )
    return LinearConstraint(matrix, least, most)
