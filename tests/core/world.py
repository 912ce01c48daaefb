"""Machines joined by a network that may delay, reorder, double and lose; its user picks what happens."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.source import Source
from mqtt_mdi.core.strategies.strategy import ANY
from mqtt_mdi.core.types import DeviceState, FrameKey, Result, Task
from mqtt_mdi.core.worker import Worker

SOURCE = "source"
Input = tuple[FrameKey, int]


@dataclass
class Message:
    """An event on its way to a machine; a task brings its input along."""

    target: str
    event: object
    value: Input | None = None


@dataclass
class Node:
    """A device as its shell knows it: the inputs it keeps, its engine, its timers."""

    name: str
    worker: Worker
    home_stages: frozenset[int]
    stages: frozenset[int]
    inputs: dict[tuple[str, str, int, int], Input] = field(default_factory=dict)
    engine: Task | None = None
    timers: dict[str, float] = field(default_factory=dict)
    alive: bool = True
    boots: int = 1


class World:
    """One source with a worker beside it, and other workers, all of one small pipeline."""

    def __init__(self, seed: int, policy: Policy, placement: list[frozenset[int]], stage_count: int) -> None:
        self.rng = Random(seed)
        self.policy = policy
        self.stage_count = stage_count
        self.now = 0.0
        self.wire: list[Message] = []
        self.frames: set[FrameKey] = set()
        self.sent: set[FrameKey] = set()
        self.refused: set[FrameKey] = set()
        self.results: dict[FrameKey, Result] = {}
        self.log: list[tuple[str, object]] = []
        self.counts: Counter[str] = Counter()
        self.versions: dict[str, int] = {}
        self.source = Source(SOURCE, policy, stage_count, ("cat", "dog"))
        self.source_timers: dict[str, float] = {}
        self.nodes: dict[str, Node] = {}
        for number, stages in enumerate(placement):
            name = SOURCE if number == 0 else f"device-{number}"
            self.nodes[name] = Node(name, self._worker(name, 1), stages, stages)
        for node in self.nodes.values():
            self._start(node)

    def check(self) -> None:
        """Every machine's own invariants."""
        self.source.check()
        self._only_rises("books", self.source.policy.version)
        for node in self.nodes.values():
            node.worker.check()
            assert node.worker.running == node.engine
            self._only_rises(f"{node.name} {node.boots}", node.worker.policy.version)

    def frame(self, number: int) -> None:
        """A sensor sends a frame, new or known."""
        key = FrameKey("cam", str(number))
        self.sent.add(key)
        self.frames.add(key)
        self.tell_source(events.FrameArrived(key, 100))

    def deliver(self, message: Message) -> None:
        """A message arrives; at a dead device it is lost."""
        if message.target == "books":
            self.tell_source(message.event)
            return
        node = self.nodes[message.target]
        if not node.alive:
            return
        if isinstance(message.event, events.TaskArrived):
            assert message.value is not None
            node.inputs.setdefault(message.event.task.key, message.value)
        self.tell(node, message.event)

    def finish(self, node: Node, label: int, score: float, seconds: float = 0.01) -> None:
        """The engine is done with its task."""
        task = node.engine
        assert task is not None
        node.engine = None
        following = (task.sensor, task.frame_id, task.stage + 1, task.attempt)
        node.inputs[following] = (task.frame, task.stage + 1)
        self.tell(node, events.StageCompleted(task, label, score, seconds, 50))

    def fail(self, node: Node, *, retry: bool) -> None:
        """The engine breaks on its task."""
        task = node.engine
        assert task is not None
        node.engine = None
        self.tell(node, events.StageFailed(task, "engine broke", retry=retry))

    def hold(self, node: Node, stages: frozenset[int]) -> None:
        """A device begins to hold other stages."""
        node.stages = stages
        self.tell(node, events.StagesReady(stages))

    def kill(self, node: Node) -> None:
        """A device dies with all it has; the broker tells the others."""
        node.alive = False
        node.inputs.clear()
        node.timers.clear()
        node.engine = None
        node.boots += 1
        node.worker = self._worker(node.name, node.boots)
        self._broadcast(node.name, events.NeighbourLost(node.name))

    def revive(self, node: Node) -> None:
        """A dead device starts afresh, with the retained policy."""
        node.alive = True
        node.stages = node.home_stages
        self._start(node)

    def publish(self, policy: Policy) -> None:
        """A policy is published; everyone hears of it in their own time."""
        self.policy = policy
        self.wire.append(Message("books", events.PolicyChanged(policy)))
        self._broadcast("", events.PolicyChanged(policy))

    def advance(self, seconds: float) -> None:
        """Time passes; timers fire in order."""
        until = self.now + seconds
        while (due := self.next_timer()) is not None and due[0] <= until:
            self.now, owner, key = max(self.now, due[0]), due[1], due[2]
            if owner == "books":
                del self.source_timers[key]
                self.tell_source(events.TimerFired(key))
            else:
                del self.nodes[owner].timers[key]
                self.tell(self.nodes[owner], events.TimerFired(key))
        self.now = until

    def next_timer(self) -> tuple[float, str, str] | None:
        """When, whose and which timer fires next."""
        due = [(at, "books", key) for key, at in self.source_timers.items()]
        due += [(at, node.name, key) for node in self.nodes.values() for key, at in node.timers.items()]
        return min(due, default=None)

    def heal(self) -> None:
        """Everybody lives, holds their stages and may send; what is under way ends or the test fails.

        Where everything must stay with the source it could not: frames go by MDI-Exit then.
        """
        strategy = "mdi-exit" if self.policy.strategy == "local" else self.policy.strategy
        version = self.policy.version + 1
        freed = {"strategy": strategy, "neighbours": {}, "version": version}
        self.publish(self.policy.model_copy(update=freed))
        for node in self.nodes.values():
            if not node.alive:
                self.revive(node)
            elif node.stages != node.home_stages:
                self.hold(node, node.home_stages)
        for _ in range(3000):
            self.check()
            if self.idle():
                return
            wire, self.wire = self.wire, []
            for message in wire:
                self.deliver(message)
            for node in self.nodes.values():
                if node.engine is not None:
                    self.finish(node, label=1, score=self.rng.random())
            # A lease may be long; when nothing else is left there is nothing to see meanwhile.
            self.advance(0.05 if self._moving() else 10.0)
        raise AssertionError(f"still owed: {self._owed()}; still moving: {self._moving()}")

    def idle(self) -> bool:
        """Whether nothing is owed, queued, running or on its way."""
        return not (self._owed() or self._moving())

    def _owed(self) -> list[object]:
        return [*self.source.leases, *self.source.pending]

    def _moving(self) -> list[object]:
        """Messages on their way, other than reports, and tasks at the devices."""
        moving: list[object] = [m for m in self.wire if not isinstance(m.event, events.NeighbourReported)]
        for node in self.nodes.values():
            moving += [*node.worker.input, *node.worker.output]
            moving += [node.engine] if node.engine else []
        return moving

    def tell(self, node: Node, event: object) -> None:
        """Give a worker an event and carry out its orders."""
        for effect in node.worker.handle(event, self.now):  # type: ignore[arg-type]
            self._log(node.name, effect)
            match effect:
                case effects.SetTimer(key, at):
                    node.timers[key] = at
                case effects.RunStage(task):
                    assert task.stage in node.stages, "ran a stage that it does not hold"
                    assert node.engine is None, "ran two stages at once"
                    assert node.inputs.pop(task.key) == (task.frame, task.stage)
                    node.engine = task
                case effects.SendTask(device, task):
                    value = node.inputs.pop(task.key)
                    assert value == (task.frame, task.stage)
                    self._send(node, device, Message("", events.TaskArrived(task, node.name), value))
                case effects.DropInput(task):
                    node.inputs.pop(task.key, None)
                case effects.ReportOutcome(source, outcome):
                    assert source == SOURCE
                    self.wire.append(Message("books", events.OutcomeReported(outcome)))
                case effects.PublishState(state):
                    self._broadcast(node.name, events.NeighbourReported(state))
        kept = {task.key for task in (*node.worker.input, *node.worker.output)}
        assert set(node.inputs) == kept, "an input without its task, or a task without its input"

    def tell_source(self, event: object) -> None:
        """Give the source an event and carry out its orders."""
        for effect in self.source.handle(event, self.now):  # type: ignore[arg-type]
            self._log("books", effect)
            match effect:
                case effects.SetTimer(key, at):
                    self.source_timers[key] = at
                case effects.ObserveBacklog():
                    worker = self.nodes[SOURCE].worker
                    self.tell_source(events.BacklogObserved(len(worker.input) + len(worker.output)))
                case effects.SubmitTask(task):
                    assert task.frame in self.frames, "submitted a frame whose bytes are gone"
                    self.deliver(Message(SOURCE, events.TaskArrived(task), (task.frame, 1)))
                case effects.PublishResult(result):
                    assert result.frame not in self.results, "answered a frame twice"
                    assert result.frame in self.frames, "answered a frame whose bytes are gone"
                    self.results[result.frame] = result
                case effects.RefuseFrame(frame, _):
                    assert frame in self.frames, "refused a frame whose bytes are gone"
                    self.refused.add(frame)
                case effects.ReleaseFrame(frame):
                    self.frames.discard(frame)

    def _send(self, node: Node, device: str, message: Message) -> None:
        """A task leaves; for ANY the broker picks a subscriber, perhaps the sender, and drops it without."""
        assert isinstance(message.event, events.TaskArrived)
        if device == ANY:
            stage = message.event.task.stage
            holders = [name for name, other in self.nodes.items() if other.alive and stage in other.stages]
            self.counts["picked"] += bool(holders)
            if holders:
                self.wire.append(replace(message, target=self.rng.choice(holders)))
            return
        assert device != node.name, "sent a task to itself"
        allowed = node.worker.policy.neighbours.get(node.name)
        assert allowed is None or device in allowed, "sent a task to whom the policy forbids"
        assert node.worker.policy.strategy != "local", "sent a task that had to stay"
        self.wire.append(replace(message, target=device))

    def _start(self, node: Node) -> None:
        self.tell(node, events.PolicyChanged(self.policy))
        self.tell(node, events.StagesReady(node.stages))
        self.tell(node, events.Started())

    def _worker(self, name: str, boot: int) -> Worker:
        identity = DeviceState(name, f"boot-{boot}")
        first = Policy(thresholds=(0.5,) * (self.stage_count - 1), queue_limit=self.policy.queue_limit)
        return Worker(identity, first, self.stage_count, Random(self.rng.random()))

    def _broadcast(self, sender: str, event: object) -> None:
        others: Iterable[str] = (name for name in self.nodes if name != sender)
        self.wire.extend(Message(name, event) for name in others)

    def _only_rises(self, who: str, version: int) -> None:
        assert version >= self.versions.get(who, 0), "went back to an older policy"
        self.versions[who] = version

    def _log(self, who: str, effect: object) -> None:
        self.log.append((who, effect))
        self.counts[type(effect).__name__] += 1
