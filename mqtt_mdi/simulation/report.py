"""What a simulation brought, in figures."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

from mqtt_mdi.core.types import Result
from mqtt_mdi.simulation.compute import Network
from mqtt_mdi.simulation.kernel import Kernel
from mqtt_mdi.simulation.node import Node

_LATENCY = "latency_ms"
_EXACT = attrgetter(*(field.name for field in fields(Result) if field.name != _LATENCY))
_DIGITS = 6


@dataclass(frozen=True)
class Report:
    """What a simulation brought. `digest` is the same for the same scenario, network and seed."""

    name: str
    seconds: float
    events: int
    admitted: int
    answered: int
    failed: int
    refused: int
    owed: int
    correct: int
    exits: tuple[int, ...]
    latencies_ms: tuple[float, ...]
    completed: dict[str, int]
    digest: str

    @property
    def throughput(self) -> float:
        """Answers a virtual second."""
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def accuracy(self) -> float | None:
        """Share of the answers that were right."""
        return self.correct / self.answered if self.answered else None


def report_of(
    name: str, kernel: Kernel, network: Network, nodes: Mapping[str, Node], results: Sequence[Result]
) -> Report:
    """The figures of a simulation that has ended."""
    ok = [result for result in results if result.status == "ok"]
    exits = Counter(result.exit_stage for result in ok)
    sources = [node.source for node in nodes.values() if node.source is not None]
    return Report(
        name,
        kernel.now,
        kernel.events,
        sum(source.ledger.admitted for source in sources),
        len(ok),
        len(results) - len(ok),
        sum(source.ledger.refused for source in sources),
        sum(len(source.leases) for source in sources),
        sum(result.label == network.truth_of(result.frame_id) for result in ok),
        tuple(exits[k] for k in range(1, network.stage_count + 1)),
        tuple(result.latency_ms for result in ok),
        {name: node.worker.counters["completed"] for name, node in nodes.items()},
        _digest(results),
    )


def check(nodes: Iterable[Node], results: Sequence[Result]) -> None:
    """The invariants, at the end of every simulation."""
    for node in nodes:
        node.worker.check()
        if node.source is not None:
            node.source.check()
    answered = {result.frame for result in results}
    assert len(answered) == len(results), "a frame was answered twice"


def _digest(results: Iterable[Result]) -> str:
    """SHA-256 of all results in their order, latencies to a billionth of a second."""
    digest = hashlib.sha256()
    for result in results:
        digest.update(repr((*_EXACT(result), round(result.latency_ms, _DIGITS))).encode())
    return digest.hexdigest()
