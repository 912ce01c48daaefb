"""The linear programme of the fluid bound for a given placement, as sparse matrices for HiGHS.

Its columns are rates: frames taken in at each source (or at all together, where they take in equally
many), then the work (N, K) of each device and stage, then the flows (E, K) of each link and stage. All are
shares of `scale`, a rate near that of the system, so that the solver's absolute tolerances mean the same
for every problem.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.planning.problem import UNLIMITED, Problem

TOLERANCE = 1e-7
"""HiGHS's own. Shares of the scale below it are nothing."""
SLACK = 5e-7
"""The share of a rate that another programme may lack that is to reach the same."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Solution:
    """Frames a second, and the rates of work (N, K) and of flows (E, K) behind them."""

    rate: float
    work: Floats
    flows: Floats


class Programme:
    """The constraints of a problem: `balance @ columns = 0` and `loads @ columns <= 1`.

    Where holders run what they are sent, `passed_on @ columns <= 0` besides, in the rows of stages held.
    A mask (N, K) says which device may run which stage. The scale is what the devices could do together if
    there were no links, unless it is given.
    """

    def __init__(self, problem: Problem, scale: float = 0.0) -> None:
        names = {device.name: index for index, device in enumerate(problem.devices)}
        self.seconds = np.array([device.seconds for device in problem.devices])
        self.reach = np.array(problem.reach)
        self.scale = scale or float((1 / (self.seconds @ self.reach)).sum())
        self._bytes = np.array(problem.input_bytes, float)
        self._keep_raw = problem.source_runs_stage_1
        self.holders_run = problem.holders_run
        tails = [names[a] for a, _ in problem.links]
        heads = [names[b] for _, b in problem.links]
        taken = self._taken([names[source] for source in problem.sources], even=problem.even_sources)
        self._count = (taken.shape[1], self.seconds.size, len(problem.links) * problem.stage_count)
        self.work = slice(self._count[0], self._count[0] + self._count[1])
        self.flows = slice(self.work.stop, sum(self._count))
        self.balance = self._balance(taken, tails, heads)
        self.loads = self._loads(np.array(list(problem.links.values()), float), problem.broker)
        self.passed_on = self._passed_on(heads)

    def fastest(self, placed: Mask) -> Solution:
        """The highest rate with a placement."""
        return self._solve(self.rate_cost(), placed, *self._holders(placed))

    def ceiling(self, allowed: Mask) -> float:
        """A rate that no placement within a mask exceeds."""
        return self._solve(self.rate_cost(), allowed).rate

    def thriftiest(self, placed: Mask, rate: float) -> Solution:
        """Of the ways to reach a rate, the one with the fewest bytes on links; it has no cycles."""
        cost = np.zeros(self.flows.stop)
        # One byte on top makes a hop cost something even where inputs have no size.
        cost[self.flows] = np.resize(1 + self._bytes, self._count[2]) / (1 + self._bytes.max())
        floor = rate / self.scale * (1 - SLACK)
        enough = LinearConstraint(-self.rate_cost()[None], floor, np.inf)
        return self._solve(cost, placed, enough, *self._holders(placed))

    def rate_cost(self) -> Floats:
        """The objective, to be minimised: minus what the sources take in."""
        cost = np.zeros(self.flows.stop)
        cost[: self.work.start] = -1
        return cost

    def highest(self, allowed: Mask) -> Floats:
        """Upper limits of the columns: no work outside the mask, no raw frames sent that must stay."""
        highest = np.full(self.flows.stop, np.inf)
        highest[self.work][~allowed.ravel()] = 0
        if self._keep_raw:
            highest[self.flows][:: len(self.reach)] = 0
        return highest

    def _solve(self, cost: Floats, allowed: Mask, *more: LinearConstraint) -> Solution:
        rows = [LinearConstraint(self.balance, 0, 0), LinearConstraint(self.loads, -np.inf, 1), *more]
        found = milp(cost, bounds=Bounds(0, self.highest(allowed)), constraints=rows)
        if found.x is None:
            raise ConfigError(f"the bound of this system cannot be computed: {found.message}")
        rates = found.x * self.scale
        shape = (-1, len(self.reach))
        return Solution(
            float(rates[: self.work.start].sum()),
            rates[self.work].reshape(shape),
            rates[self.flows].reshape(shape),
        )

    def _holders(self, placed: Mask) -> list[LinearConstraint]:
        """A device that holds a stage runs what it is sent of it, where that is asked for."""
        return [LinearConstraint(self.passed_on[placed.ravel()], -np.inf, 0)] if self.holders_run else []

    def _taken(self, sources: list[int], *, even: bool) -> sparse.csr_array:
        """By device and stage: the frames that come in, for each column of the sources."""
        devices, stages = self.seconds.shape
        each = sparse.lil_array((devices * stages, len(sources)))
        each[[n * stages for n in sources], range(len(sources))] = 1
        return sparse.csr_array(each @ np.full((len(sources), 1), 1 / len(sources)) if even else each)

    def _balance(self, taken: sparse.csr_array, tails: list[int], heads: list[int]) -> sparse.csr_array:
        """By device and stage: done + sent on = taken in + received + going on from the stage before."""
        devices, stages = self.seconds.shape
        before = self.reach[:-1]
        onward = np.divide(self.reach[1:], before, out=np.zeros(stages - 1), where=before > 0)
        done = sparse.eye_array(stages) - sparse.diags_array(onward, offsets=-1, shape=(stages, stages))
        sent = self._at(tails) - self._at(heads)
        blocks = [-taken, sparse.kron(sparse.eye_array(devices), done), sparse.kron(sent, np.eye(stages))]
        return sparse.hstack([block for block in blocks if block.shape[1]], format="csr")

    def _passed_on(self, heads: list[int]) -> sparse.csr_array:
        """By device and stage: received - done."""
        stages = len(self.reach)
        taken = sparse.csr_array((self._count[1], self._count[0]))
        received = sparse.kron(self._at(heads), np.eye(stages))
        blocks = [taken, -sparse.eye_array(self._count[1]), received]
        return sparse.hstack([block for block in blocks if block.shape[1]], format="csr")

    def _at(self, ends: list[int]) -> sparse.coo_array:
        """(N, E): at which device each link has the given end."""
        each = (np.array(ends, int), np.arange(len(ends)))
        return sparse.coo_array((np.ones(len(ends)), each), shape=(len(self.seconds), len(ends)))

    def _loads(self, links: Floats, broker: float | None) -> sparse.csr_array:
        """Seconds of each device in a second, share of each link's bytes, share of the broker's."""
        devices, stages = self.seconds.shape
        starts = np.arange(devices + 1) * stages
        seconds = sparse.csr_array((self.seconds.ravel(), np.arange(self.seconds.size), starts))
        loads = [seconds]
        if len(links):
            limited = np.flatnonzero(links < UNLIMITED)
            shares = sparse.diags_array(1 / links, format="csr")[limited]
            if broker is not None:
                shares = sparse.vstack([shares, np.full((1, len(links)), 1 / broker)])
            loads.append(sparse.kron(shares, self._bytes[None]))
        matrix = sparse.block_diag(loads)
        nothing = sparse.csr_array((matrix.shape[0], self._count[0]))
        return sparse.hstack([nothing, self.scale * matrix], format="csr")
