"""The second shell: the very machines of the runtime, on virtual time, links and replayed exits."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from random import Random

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.coordinator import Coordinator
from mqtt_mdi.core.ledger import Tally
from mqtt_mdi.core.policy import Policy, merge_patch
from mqtt_mdi.core.source import Source
from mqtt_mdi.core.types import DeviceState, FrameKey, Outcome, Result, Task
from mqtt_mdi.core.worker import Worker
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.simulation.compute import Network
from mqtt_mdi.simulation.kernel import Kernel
from mqtt_mdi.simulation.network import Channel
from mqtt_mdi.simulation.scenario import DeviceSpec, Link, Scenario

SENSOR = "sim"
FRAME_BYTES = 800
LAST_WILL_S = 0.05


@dataclass
class Node:
    """A device: its machines while it lives, and what its timers are set to."""

    spec: DeviceSpec
    stages: frozenset[int]
    seconds: list[float]
    worker: Worker
    source: Source | None
    boot: int = 0
    alive: bool = True
    channels: dict[str, Channel] = field(default_factory=dict)
    timers: dict[str, float] = field(default_factory=dict)


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


class World:
    """One scenario, ready to run once."""

    def __init__(self, scenario: Scenario, network: Network) -> None:
        self.scenario = scenario
        self.network = network
        self.kernel = Kernel()
        self.policy = _policy(scenario, network)
        self.results: list[Result] = []
        self.coordinator = Coordinator(self.policy, network.stage_count, Tally(), self._rng("coordinator"))
        self.nodes = {spec.id: self._node(spec) for spec in scenario.devices}
        self._sources = [node for node in self.nodes.values() if node.source is not None]
        self._progress: Callable[[int], None] = lambda _answers: None
        self._arrived = 0
        self._next_source = 0
        self._check_stages()
        for (a, b), link in scenario.edges().items():
            self.nodes[a].channels[b] = Channel(self.kernel, link, self._rng(a, b))
        self._broker = Channel(
            self.kernel, Link(latency_ms=scenario.default_link.latency_ms), self._rng("broker")
        )

    def run(self, progress: Callable[[int], None] = lambda _answers: None) -> Report:
        """Let it happen; `progress` is told the answers so far after each one."""
        self._progress = progress
        for node in self.nodes.values():
            self._start(node)
        self._tell_coordinator(events.Started())
        for fault in self.scenario.faults:
            strike = self._die if fault.what == "dies" else self._return
            self.kernel.at(fault.at_s, partial(strike, self.nodes[fault.device]))
        self._plan_arrivals()
        self.kernel.run(self.scenario.limit_s, self._done)
        self._check()
        return self._report()

    def _rng(self, *names: object) -> Random:
        """A generator of its own for each place that draws, so that one more draw moves no other."""
        return Random("/".join(map(str, (self.scenario.seed, *names))))  # noqa: S311 -- a simulation

    def _node(self, spec: DeviceSpec, boot: int = 0) -> Node:
        count = self.network.stage_count
        stages = frozenset(range(1, count + 1) if spec.stages == "all" else spec.stages)
        identity = DeviceState(spec.id, f"boot-{boot}", role="source" if spec.source else "device")
        worker = Worker(identity, self.policy, count, self._rng(spec.id, boot))
        source = Source(spec.id, self.policy, count) if spec.source else None
        seconds = [macs / spec.macs_per_second for macs in self.network.macs]
        return Node(spec, stages, seconds, worker, source, boot)

    def _check_stages(self) -> None:
        count = self.network.stage_count
        for node in self.nodes.values():
            if strange := [k for k in node.stages if k > count]:
                raise ConfigError(f"devices.{node.spec.id}.stages: {strange}, the network has {count}")
        held = frozenset[int]().union(*(node.stages for node in self.nodes.values()))
        if missing := sorted(set(range(1, count + 1)) - held):
            raise ConfigError(f"devices: nobody holds stage {', '.join(map(str, missing))}")

    def _start(self, node: Node) -> None:
        self._tell_worker(node, events.StagesReady(node.stages))
        self._tell_worker(node, events.Started())

    def _die(self, node: Node) -> None:
        node.alive = False
        lost = events.NeighbourLost(node.spec.id)
        for other in node.channels:
            self.kernel.after(LAST_WILL_S, partial(self._tell_worker, self.nodes[other], lost))
        self.kernel.after(LAST_WILL_S, partial(self._tell_coordinator, lost))

    def _return(self, node: Node) -> None:
        fresh = self._node(node.spec, node.boot + 1)
        node.worker, node.boot, node.alive, node.timers = fresh.worker, fresh.boot, True, {}
        self._start(node)

    def _plan_arrivals(self) -> None:
        arrivals, frames = self.scenario.arrivals, self.scenario.frames
        rng = self._rng("arrivals")
        if arrivals.kind == "saturating":
            for node in self._sources:
                self._keep_full(node)
        elif arrivals.kind == "trace":
            for at in arrivals.times_s[:frames]:
                self.kernel.at(at, self._arrive)
        else:
            rate = arrivals.rate or 1.0
            fixed = arrivals.kind == "fixed"
            gaps = (1 / rate if fixed else rng.expovariate(rate) for _ in range(frames))
            for at in accumulate(gaps):
                self.kernel.at(at, self._arrive)

    def _arrive(self) -> None:
        node = self._sources[self._next_source]
        self._next_source = (self._next_source + 1) % len(self._sources)
        self._give_frame(node)

    def _give_frame(self, node: Node) -> None:
        frame = FrameKey(SENSOR, str(self._arrived))
        self._arrived += 1
        self._tell_source(node, events.FrameArrived(frame, FRAME_BYTES))

    def _keep_full(self, node: Node) -> None:
        assert node.source is not None
        while self._arrived < self.scenario.frames and not node.source.pending:
            self._give_frame(node)

    def _tell_worker(self, node: Node, event: object) -> None:
        if node.alive:
            for effect in node.worker.handle(event, self.kernel.now):  # type: ignore[arg-type]
                self._carry_out(node, effect)

    def _tell_source(self, node: Node, event: object) -> None:
        if node.alive and node.source is not None:
            for effect in node.source.handle(event, self.kernel.now):  # type: ignore[arg-type]
                self._carry_out(node, effect)

    def _tell_coordinator(self, event: object) -> None:
        for effect in self.coordinator.handle(event, self.kernel.now):  # type: ignore[arg-type]
            match effect:
                case effects.SetTimer(key, at):
                    self.kernel.at(at, partial(self._tell_coordinator, events.TimerFired(key)))
                case effects.PublishPolicy(policy):
                    for node in self.nodes.values():
                        self._broker.signal(partial(self._tell_worker, node, events.PolicyChanged(policy)))
                        self._broker.signal(partial(self._tell_source, node, events.PolicyChanged(policy)))

    def _carry_out(self, node: Node, effect: object) -> None:
        match effect:
            case effects.SetTimer(key, at):
                node.timers[key] = at
                self.kernel.at(at, partial(self._fire, node, key, at, node.boot))
            case effects.RunStage(task):
                seconds = node.seconds[task.stage - 1]
                self.kernel.after(seconds, partial(self._completed, node, task, seconds, node.boot))
            case effects.SendTask(device, task):
                arrival = partial(self._tell_worker, self.nodes[device], events.TaskArrived(task))
                node.channels[device].send(task.size, arrival)
            case effects.ReportOutcome(source, outcome):
                self._report_outcome(node, source, outcome)
            case effects.PublishState(state):
                self._publish_state(node, state)
            case effects.SubmitTask(task):
                self._tell_worker(node, events.TaskArrived(task))
            case effects.ObserveBacklog():
                tasks = len(node.worker.input) + len(node.worker.output)
                self.kernel.after(0.0, partial(self._tell_source, node, events.BacklogObserved(tasks)))
            case effects.PublishResult(result):
                self._publish_result(node, result)

    def _fire(self, node: Node, key: str, at: float, boot: int) -> None:
        if node.boot == boot and node.timers.get(key) == at:
            self._tell_worker(node, events.TimerFired(key))
            self._tell_source(node, events.TimerFired(key))

    def _completed(self, node: Node, task: Task, seconds: float, boot: int) -> None:
        if node.boot == boot:
            sample = int(task.frame_id) % len(self.network.truth)
            k = task.stage - 1
            label, score = self.network.labels[sample][k], self.network.scores[sample][k]
            done = events.StageCompleted(task, label, score, seconds, self.network.sizes[k])
            self._tell_worker(node, done)

    def _report_outcome(self, node: Node, source: str, outcome: Outcome) -> None:
        tell = partial(self._tell_source, self.nodes[source], events.OutcomeReported(outcome))
        if source == node.spec.id:
            self.kernel.after(0.0, tell)
        else:
            node.channels.get(source, self._broker).signal(tell)

    def _publish_state(self, node: Node, state: DeviceState) -> None:
        event = events.NeighbourReported(state)
        for other, channel in node.channels.items():
            channel.signal(partial(self._tell_worker, self.nodes[other], event))
        self._broker.signal(partial(self._tell_coordinator, event))

    def _publish_result(self, node: Node, result: Result) -> None:
        self.results.append(result)
        self._progress(len(self.results))
        truth = self.network.truth[int(result.frame_id) % len(self.network.truth)]
        graded = (result.label == truth,) if result.status == "ok" else ()
        stored = events.ResultsStored((result,), graded=graded)
        self._broker.signal(partial(self._tell_coordinator, stored))
        if self.scenario.arrivals.kind == "saturating":
            self.kernel.after(0.0, partial(self._keep_full, node))

    def _done(self) -> bool:
        refused = sum(node.source.ledger.refused for node in self._sources if node.source)
        return len(self.results) + refused >= self.scenario.frames

    def _check(self) -> None:
        """The invariants, at the end of every simulation."""
        for node in self.nodes.values():
            node.worker.check()
            if node.source is not None:
                node.source.check()
        answered = {result.frame for result in self.results}
        assert len(answered) == len(self.results), "a frame was answered twice"

    def _report(self) -> Report:
        ok = [result for result in self.results if result.status == "ok"]
        truth = self.network.truth
        ledgers = [node.source.ledger for node in self._sources if node.source]
        stages = range(1, self.network.stage_count + 1)
        digest = hashlib.sha256()
        for result in self.results:
            digest.update(repr(replace(result, latency_ms=round(result.latency_ms, 6))).encode())
        return Report(
            self.scenario.name,
            self.kernel.now,
            self.kernel.events,
            sum(ledger.admitted for ledger in ledgers),
            len(ok),
            len(self.results) - len(ok),
            sum(ledger.refused for ledger in ledgers),
            sum(len(node.source.leases) for node in self._sources if node.source),
            sum(result.label == truth[int(result.frame_id) % len(truth)] for result in ok),
            tuple(sum(result.exit_stage == k for result in ok) for k in stages),
            tuple(result.latency_ms for result in ok),
            {name: node.worker.counters["completed"] for name, node in self.nodes.items()},
            digest.hexdigest(),
        )


def _policy(scenario: Scenario, network: Network) -> Policy:
    defaults = Policy(version=1, thresholds=network.thresholds).model_dump(mode="json")
    try:
        return Policy.model_validate(merge_patch(defaults, scenario.policy))
    except ValueError as error:
        raise ConfigError(f"policy: {error}") from error
