"""From rates of work and flows to what devices follow: which share of the tasks that come up goes where."""

from dataclasses import dataclass

import numpy as np

from mqtt_mdi.core.system import Shares
from mqtt_mdi.planning.fluid import Bound
from mqtt_mdi.planning.problem import Problem
from mqtt_mdi.planning.programme import Floats

LEAST = 1e-3
"""A smaller share is none: a link and a stage kept ready for one task in a thousand are not worth it."""
NOTHING = 1e-6
"""A smaller share of the rate is the solver's rounding."""


@dataclass(frozen=True)
class Routing:
    """Shares, the rate that the devices and links can keep up with under them, and the work at that rate.

    `work[n][k]` is how often a second device n runs stage k + 1.
    """

    rate: float
    shares: Shares
    work: dict[str, tuple[float, ...]]


def route(problem: Problem, bound: Bound) -> Routing:
    """Split what comes up at each device as the bound does, and see what rate the shares alone allow.

    Assumes of the devices: what comes up somewhere (a frame taken in, a task made by the stage before)
    follows the shares there; what is received is run where its stage is held, and else follows the shares,
    too; sources take in equally many frames. The bound must be of a problem with given placement,
    `even_sources` and `holders_run`: then nothing is received beyond what the bound runs there, and only
    what a device does not receive of its work is its own share.

    Shares below 0.1 % are left out, so the rate may be that much lower than the bound's.
    """
    names = [device.name for device in problem.devices]
    place = {name: index for index, name in enumerate(names)}
    count, stages = len(names), problem.stage_count
    planned = np.zeros((stages, count, count))
    for (a, b), rates in bound.flows.items():
        planned[:, place[a], place[b]] = rates
    work = np.array([bound.work[name] for name in names])
    holds = np.array([[k in (d.stages or ()) for k in range(1, stages + 1)] for d in problem.devices])

    shares: dict[str, dict[int, dict[str, float]]] = {}
    done, sent = np.zeros((count, stages)), np.zeros((count, count))
    made = np.array([name in problem.sources for name in names]) / len(problem.sources)
    for k, flows in enumerate(planned):
        own = work[:, k] - flows.sum(axis=0)
        share = _split(flows, np.where(holds[:, k] & (own > NOTHING * bound.rate), own, 0.0))
        passed_on = np.where(holds[:, k], 0.0, share)
        shared_out = np.linalg.solve(np.eye(count) - passed_on.T, made)
        for n in np.flatnonzero((shared_out > NOTHING) & share.any(axis=1)):
            goes = {names[m]: float(share[n, m]) for m in np.flatnonzero(share[n])}
            shares.setdefault(names[n], {})[k + 1] = goes
        moved = shared_out[:, None] * share
        done[:, k] = np.where(holds[:, k], moved.sum(axis=0), 0.0)
        np.fill_diagonal(moved, 0.0)
        sent += problem.input_bytes[k] * moved
        if k + 1 < stages and problem.reach[k] > 0:
            made = done[:, k] * problem.reach[k + 1] / problem.reach[k]

    seconds = np.array([device.seconds for device in problem.devices])
    loads = [*(done * seconds).sum(axis=1)]
    loads.extend(sent[place[a], place[b]] / limit for (a, b), limit in problem.links.items())
    rate = float(1 / max(loads))
    rates = (done * rate).tolist()
    return Routing(rate, shares, {name: tuple(row) for name, row in zip(names, rates, strict=True)})


def _split(flows: Floats, own: Floats) -> Floats:
    """(N, N): from each device the share of each; a row of zeros where nothing comes up."""
    out = flows + np.diag(own)
    total = out.sum(axis=1, keepdims=True)
    share = np.divide(out, total, out=np.zeros_like(out), where=total > 0)
    share[share < LEAST] = 0.0
    kept = share.sum(axis=1, keepdims=True)
    rows: Floats = share / np.where(kept > 0, kept, 1.0)
    return rows
