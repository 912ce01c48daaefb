"""When frames come, and to which source."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, cycle, repeat
from math import inf
from random import Random

from mqtt_mdi.simulation.kernel import Kernel
from mqtt_mdi.simulation.node import Node
from mqtt_mdi.simulation.scenario import Arrivals, Scenario


class Feed:
    """Hands a scenario's frames, numbered from 0, to its sources: in turn, or to each as it admits them."""

    def __init__(
        self,
        scenario: Scenario,
        kernel: Kernel,
        sources: Sequence[Node],
        give: Callable[[Node, int], None],
        rng: Random,
    ) -> None:
        self._sources = sources
        self._kernel = kernel
        self._give = give
        self._left = scenario.frames
        self._until = scenario.arrivals.until_s or inf
        self.given = 0
        self._turns = cycle(sources)
        self._saturating = scenario.arrivals.kind == "saturating"
        self._times = times_of(scenario.arrivals, rng)

    @property
    def over(self) -> bool:
        """Whether no frame comes any more."""
        return not self._left or self._kernel.now >= self._until

    def begin(self) -> None:
        """Hand out the first frames, or wait for the first one's time."""
        if self._saturating:
            for node in self._sources:
                self._keep_full(node)
        else:
            self._expect()

    def answered(self, node: Node) -> None:
        """A frame of this source was answered: there may be room for another."""
        if self._saturating and not self.over:
            self._kernel.after(0.0, self._keep_full, node)

    def _keep_full(self, node: Node) -> None:
        assert node.source is not None
        while not self.over and not node.source.pending:
            self._next(node)

    def _expect(self) -> None:
        """One arrival is awaited at a time, so that the heap stays small."""
        at = next(self._times, None)
        if at is not None and self._left and at < self._until:
            self._kernel.at(at, self._arrive)

    def _arrive(self) -> None:
        self._next(next(self._turns))
        self._expect()

    def _next(self, node: Node) -> None:
        self._left -= 1
        self.given += 1
        self._give(node, self.given - 1)


def times_of(arrivals: Arrivals, rng: Random) -> Iterator[float]:
    """The seconds at which frames come; without end, unless the times are given."""
    rate = arrivals.rate or 1.0
    match arrivals.kind:
        case "trace":
            return iter(arrivals.times_s)
        case "fixed":
            return accumulate(repeat(1 / rate))
        case _:
            return accumulate(rng.expovariate(rate) for _ in repeat(None))
