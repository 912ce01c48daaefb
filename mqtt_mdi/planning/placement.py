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
WORTH = 1e-3
"""The share of the rate that a stage must bring to be placed on a device that has others already."""
MANY = 1000
"""Columns from which HiGHS may take seconds before it branches at all."""
_INFEASIBLE = 2


@dataclass(frozen=True)
class Search:
    """When to stop looking for a placement, and how near to the best suffices, as a share.

    A search ends by itself, and always in the same way, after so many nodes of the tree as `effort` allows:
    the time for a node grows with the columns of the programme to the power of 1.5. `time_limit_s` is for
    emergencies: how much is found by then depends on the machine.
    """

    time_limit_s: float = 1.5
    gap: float = 1e-3
    effort: float = 8e5

    def options(self, columns: int) -> dict[str, float]:
        """What HiGHS is told for a programme of so many columns; without presolving it is faster here."""
        nodes = max(1, int(self.effort / columns**1.5))
        return {
            "time_limit": self.time_limit_s,
            "mip_rel_gap": self.gap,
            "node_limit": nodes,
            "presolve": False,
        }


@dataclass(frozen=True)
class _Found:
    """A placement (N, K), None if there was none in time, its rate, and a limit of every placement's."""

    chosen: Mask | None
    rate: float
    limit: float


def choose_placement(
    problem: Problem, programme: Programme, allowed: Mask, search: Search
) -> tuple[Mask, float]:
    """Place the stages of free devices under their memory, for the highest rate.

    `allowed` (N, K) is where each stage could be if it were alone. Returns the best placement found (N, K)
    and a proven limit of every placement's rate.

    A first search sends all traffic through one hub: fewer flows, so it is fast, and no harder than the
    links. Only where its placement does worse on the links than in that search do they enter another,
    unless they are so many that it would not end. That other search knows, too, that a device which holds
    a stage may have to run all that it is sent of it.

    Raises:
        ConfigError: The stages do not fit, with the bytes that lack, or no placement was found in time.
    """
    end = monotonic() + search.time_limit_s
    found = _search_hub(problem, allowed, programme.ceiling(allowed), search)
    best, limit = found.chosen, found.limit
    rate = 0.0 if best is None else programme.fastest(best).rate
    left = end - monotonic()
    if (best is None or rate < found.rate * (1 - search.gap)) and left > 0 and programme.flows.stop < MANY:
        other = _search(problem, programme, allowed, limit, replace(search, time_limit_s=left))
        limit = other.limit
        if other.chosen is not None and programme.fastest(other.chosen).rate > rate:
            best = other.chosen
    if best is None:
        raise ConfigError(f"no placement found in {search.time_limit_s:g} s: allow more time")
    return best, limit


def relaxed_limit(problem: Problem, allowed: Mask) -> float:
    """A rate that no placement exceeds, proven at once: memory may hold parts of stages, links are one hub.

    Raises ConfigError when the stages do not fit even so.
    """
    return _search_hub(problem, allowed, np.inf, None).limit


def _search_hub(problem: Problem, allowed: Mask, limit: float, search: Search | None) -> _Found:
    """`_search` with all links together, of which HiGHS knows at once how much they carry at most."""
    hub, aside = _through_hub(problem), np.zeros((1, problem.stage_count), bool)
    programme, everywhere = Programme(hub), np.vstack([allowed, aside])
    limit = min(limit, programme.ceiling(everywhere))
    found = _search(hub, programme, everywhere, limit, search)
    return found if found.chosen is None else replace(found, chosen=found.chosen[:-1])


def _search(
    problem: Problem, programme: Programme, allowed: Mask, limit: float, search: Search | None
) -> _Found:
    """Place whole stages, or parts of them where there is no search."""
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
    if programme.holders_run and search is not None:
        # Each task passes a device once at most, so this is more than can be passed on.
        all_of_it = np.tile(limit * programme.reach / programme.scale, len(problem.devices))
        blocks += ((programme.passed_on, sparse.diags_array(all_of_it), -np.inf, all_of_it),)
    fixed = np.repeat([device.stages is not None for device in problem.devices], problem.stage_count)
    prices = _loading(problem).ravel() * limit / programme.scale
    cost = np.concatenate([programme.rate_cost(), prices])
    found = milp(
        cost,
        integrality=np.repeat([0, int(search is not None)], [width, cells]),
        bounds=Bounds(
            np.concatenate([np.zeros(width), fixed & allowed.ravel()]),
            np.concatenate([programme.highest(allowed), allowed.ravel()]),
        ),
        constraints=_constraint(blocks),
        options=None if search is None else search.options(len(cost)),
    )
    if found.status == _INFEASIBLE:
        raise ConfigError(
            f"the stages do not fit: however placed, the devices that frames can reach lack "
            f"{_missing_bytes(problem, allowed):.0f} bytes of memory to hold each stage once"
        )
    if found.x is None:
        return _Found(None, 0.0, limit)
    chosen = found.x[width:].reshape(allowed.shape) > 0.5  # noqa: PLR2004 -- between no and yes
    rate = float(-programme.rate_cost() @ found.x[:width]) * programme.scale
    bound = found.fun if search is None else found.mip_dual_bound
    return _Found(chosen, rate, min(limit, float(prices.sum() - bound) * programme.scale))


def _loading(problem: Problem) -> Floats:
    """(N, K): the share of the rate that each stage must bring, where a device would have to load it.

    A device that has none yet does nothing that loading could disturb.
    """
    stages = range(1, problem.stage_count + 1)
    return np.array(
        [
            [WORTH if d.stages is None and d.loaded and k not in d.loaded else 0.0 for k in stages]
            for d in problem.devices
        ]
    )


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
    devices = (*problem.devices, hub)
    return replace(problem, devices=devices, links=links, broker=broker, holders_run=False)


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
