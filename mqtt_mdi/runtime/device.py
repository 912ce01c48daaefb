"""A device: a worker between an MQTT connection and an engine, and perhaps a source beside it."""

import logging
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal

from mqtt_mdi.bundle.manifest import Manifest, StageSpec
from mqtt_mdi.bundle.sealed import read_sealed
from mqtt_mdi.bundle.stages import read_stage, verify_stage
from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Outcome, Task
from mqtt_mdi.core.worker import Worker
from mqtt_mdi.engine.base import Engine
from mqtt_mdi.errors import BundleError, ConfigError, ProtocolError
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.runtime.message import Message, Will
from mqtt_mdi.runtime.runner import Runner
from mqtt_mdi.runtime.shell import Shell, new_boot
from mqtt_mdi.runtime.trust import Trust, sealed_in
from mqtt_mdi.wire.messages import DEVICE_STATE, OUTCOMES, POLICY, state_of
from mqtt_mdi.wire.tasks import MAX_BATCH, TaskInput, decode_tasks, encode_tasks, messages_of
from mqtt_mdi.wire.topics import Topic, Topics, identifier

log = logging.getLogger(__name__)

DRAIN_S = 2.0
UNDERWAY_S = 0.2
"""How long a device that leaves waits for tasks sent before its neighbours knew."""

Role = Literal["device", "source"]
Stages = frozenset[int] | Literal["all"]
LoadStage = Callable[[bytes, StageSpec], Engine]


@dataclass(frozen=True)
class DeviceSettings:
    """How a device is started. Without a bundle folder its stages come over MQTT.

    `emulate` is the speed of a slower device to pass for, in multiply-adds a second; `memory` the bytes
    that a planner may fill with stages; `model_key` the PEM file of the public key that a manifest must be
    signed with, None to run any model.
    """

    broker: BrokerURL
    pipeline: str
    device: str
    stages: Stages
    bundle: Path | None = None
    emulate: float | None = None
    memory: int | None = None
    model_key: Path | None = None


class Device(Shell):
    """The process on a box. The worker decides; this carries its orders out."""

    role: Role = "device"
    session_s = 0
    """How long the broker keeps messages for us while we are away; then we also say what we have taken."""

    def __init__(self, settings: DeviceSettings, load: LoadStage) -> None:
        topics = Topics(settings.pipeline)
        name = identifier(settings.device, "--id")
        if name == "any":
            raise ConfigError("--id any: the topic of that name belongs to all devices; choose another")
        self.settings = settings
        self.trust = Trust(name, settings.model_key)
        self.identity = DeviceState(name, new_boot(), role=self.role, memory=settings.memory)
        gone = DEVICE_STATE.encode(replace(self.identity, online=False))
        connection = Connection(
            settings.broker,
            topics.client_id("device", name),
            will=Will(topics.device(name), gone),
            session_expiry_s=self.session_s,
            manual_ack=self.session_s > 0,
        )
        super().__init__(name, topics, connection)
        self.manifest: Manifest | None = None
        self.worker: Worker | None = None
        self.runner = Runner(load, self._loaded, self._ran, settings.emulate)
        self._policy: Policy | None = None
        self._rng = Random(name)  # noqa: S311 -- choices between neighbours
        self._inputs: dict[tuple[str, str, int, int], TaskInput] = {}
        self._ready: set[int] = set()
        # Loads end in the order in which they began; one whose stage was dropped meanwhile is stale.
        self._loading: dict[int, object] = {}
        self._loads: deque[tuple[int, object]] = deque()
        self._wanted: frozenset[int] = frozenset()
        self._born = False
        self._leaving = False
        self._sending: defaultdict[tuple[str, int], list[tuple[Task, TaskInput]]] = defaultdict(list)
        self._outcomes: defaultdict[str, list[Outcome]] = defaultdict(list)

    def serve(self) -> None:
        """Run until stopped; then hand back what is queued here and say goodbye."""
        self.runner.start()
        if self.settings.bundle is not None:
            self._use(self.trust.open(read_sealed(self.settings.bundle)))
        try:
            self.run()
            self.drain()
        finally:
            self._say_goodbye()
            self.connection.close()
            self.runner.stop()

    def connected(self) -> None:
        """Subscribe to what every device hears and tell our state anew."""
        self._born = False
        self.connection.subscribe(self.topics.policy, qos=1)
        self.connection.subscribe(self.topics.device())
        if self.settings.bundle is None:
            self.connection.subscribe(self.topics.manifest, qos=1)
        for stage in self._ready & self._wanted:
            self._listen(stage)
        for stage in self._wanted - self._ready - self._loading.keys():
            self._fetch(stage)
        self.tell(events.Started())

    def received(self, message: Message, topic: Topic) -> None:
        """Turn a message into events."""
        match topic.kind:
            case "devices":
                self._hear_device(message, topic.name)
            case "policy":
                self._obey(POLICY.decode(message.payload))
            case "model/manifest":
                self._hear_manifest(message)
            case "model/stage":
                self._hear_graph(topic.stage, message.payload)
            case "stage":
                batch = decode_tasks(message.payload, topic.stage)
                for task, value in batch.tasks:
                    self.submit(task, value, batch.sender)
            case _:
                raise ProtocolError(f"{self.role} {self.name} does not read {topic.kind}")

    def submit(self, task: Task, value: TaskInput, sender: str | None = None) -> None:
        """Give the worker a task and keep its input."""
        if self.worker is None:
            raise ProtocolError(f"{self.name} has no model yet")
        self._inputs.setdefault(task.key, value)
        self.tell(events.TaskArrived(task, sender))

    def tell(self, event: object) -> None:
        """Give the worker an event and carry out what it orders."""
        if self.worker is None:
            return
        for effect in self.worker.handle(event, self.now()):  # type: ignore[arg-type]
            self.carry_out(effect)

    def carry_out(self, effect: object) -> None:
        """Do what the worker ordered."""
        match effect:
            case effects.RunStage(task):
                self.runner.run(task, self._inputs.pop(task.key))
            case effects.SendTask(device, task):
                self._sending[device, task.stage].append((task, self._inputs.pop(task.key)))
            case effects.DropInput(task):
                self._inputs.pop(task.key, None)
            case effects.ReportOutcome(source, outcome):
                self.report(source, outcome)
            case effects.PublishState(state):
                self._publish_state(state)
            case effects.SetTimer(key, at):
                self.set_timer(key, at, lambda fired: self.tell(events.TimerFired(fired)))

    def report(self, source: str, outcome: Outcome) -> None:
        """Tell a source what became of its frame, together with others of this turn."""
        self._outcomes[source].append(outcome)

    def extra_counters(self) -> dict[str, int]:
        """What this process counts beside its worker."""
        return {"bad_messages": self.bad_messages, "unverified_models": self.trust.unverified}

    def end_turn(self) -> None:
        """Send tasks and outcomes, many to a message: the largest single saving there is.

        A task lost at quality 0 costs a lease, and so would an outcome, which is smaller: it goes at 1.
        """
        qos = self.worker.policy.data_qos if self.worker else 0
        for (device, stage), batch in self._sending.items():
            for part in messages_of(batch):
                payload = encode_tasks(part, self.name)
                if not self.connection.publish(self.topics.stage(stage, device), payload, qos=qos):
                    self._too_large(part)
        for source, outcomes in self._outcomes.items():
            for start in range(0, len(outcomes), MAX_BATCH):
                payload = OUTCOMES.encode(outcomes[start : start + MAX_BATCH])
                self.connection.publish(self.topics.exits(source), payload, qos=1)
        self._sending.clear()
        self._outcomes.clear()

    def _too_large(self, batch: list[tuple[Task, TaskInput]]) -> None:
        for task, _ in batch:
            reason = f"the input of stage {task.stage}, {task.size} bytes, is more than the broker takes"
            self.report(task.source, task.outcome(self.name, reason=reason))

    def model_changed(self, manifest: Manifest) -> None:
        """The first model arrived, or another one."""

    def _hear_device(self, message: Message, device: str) -> None:
        state = state_of(device, message.payload) if message.payload else None
        if state is None:
            self.tell(events.NeighbourLost(device))
        elif device == self.name:
            self._hear_namesake(state, message.epoch)
        else:
            # What the broker kept has been under way for longer than any link takes.
            fresh = replace(state, echoes={}) if message.retain else state
            self.tell(events.NeighbourReported(fresh))

    def _hear_namesake(self, state: DeviceState, epoch: int) -> None:
        """A later start with our name took our connection: many brokers tell no reason.

        At our first connection it is our own earlier start, whose clock may have been ahead.
        """
        if epoch > 1 and state.boot > self.identity.boot:
            self.fail(ConfigError(f"another process was started as {self.name}: give each its own --id"))

    def _obey(self, policy: Policy) -> None:
        self._policy = policy
        self.tell(events.PolicyChanged(policy))
        self._place()

    def _hear_manifest(self, message: Message) -> None:
        try:
            manifest = self.trust.open(sealed_in(message))
        except BundleError as error:
            raise ProtocolError(str(error)) from error
        if manifest != self.manifest:
            self._use(manifest)

    def _use(self, manifest: Manifest) -> None:
        """Begin with a model, or begin anew with another one; leases bring back what was queued."""
        log.info("%s has model %s of %d stages", self.name, manifest.name, manifest.stage_count)
        for stage in self._ready:
            self._unlisten(stage)
        self.manifest = manifest
        self._ready.clear()
        self._loading.clear()
        self._wanted = frozenset()
        self._inputs.clear()
        self.runner.use(manifest)
        policy = Policy(thresholds=manifest.thresholds)
        self.worker = Worker(self.identity, policy, manifest.stage_count, self._rng)
        self.model_changed(manifest)
        if self._policy is not None:
            self._obey(self._policy)
        self.tell(events.Started())
        self._place()

    def _place(self) -> None:
        """Hold the stages that the policy gives us, or else those we were started with."""
        if self.manifest is None or self.worker is None or self._leaving:
            return
        every = frozenset(range(1, self.manifest.stage_count + 1))
        started_with = every if self.settings.stages == "all" else self.settings.stages
        wanted = frozenset(self.worker.policy.placement.get(self.name, started_with))
        if strange := wanted - every:
            self.fail(ConfigError(f"{self.name}: no stages {sorted(strange)}; the model has {sorted(every)}"))
            return
        before, self._wanted = self._wanted, wanted
        for stage in sorted(wanted - before):
            self._fetch(stage)
        for stage in before - wanted:
            self._unlisten(stage)
            self.connection.unsubscribe(self.topics.model_stage(stage))
            self._ready.discard(stage)
            self._loading.pop(stage, None)
            self.runner.unload(stage)
        if wanted != before:
            self._tell_stages()

    def _fetch(self, stage: int) -> None:
        assert self.manifest is not None
        if self.settings.bundle is not None:
            self._load(stage, read_stage(self.settings.bundle, self.manifest.stage(stage)))
        else:
            self.connection.subscribe(self.topics.model_stage(stage), qos=1)

    def _hear_graph(self, stage: int, payload: bytes) -> None:
        if self.manifest is None or stage not in self._wanted - self._ready - self._loading.keys():
            return
        try:
            graph = verify_stage(payload, self.manifest.stage(stage), "the graph received")
        except BundleError as error:
            raise ProtocolError(str(error)) from error
        self.connection.unsubscribe(self.topics.model_stage(stage))
        self._load(stage, graph)

    def _load(self, stage: int, graph: bytes) -> None:
        self._loading[stage] = token = object()
        self._loads.append((stage, token))
        self.runner.load(stage, graph)

    def _loaded(self, stage: int, fault: str | None) -> None:
        self.call(lambda: self._stage_ready(stage, fault))

    def _stage_ready(self, stage: int, fault: str | None) -> None:
        _, token = self._loads.popleft()
        if self._loading.get(stage) is not token:
            return
        del self._loading[stage]
        if fault is not None:
            self.dead_letter(self.topics.model_stage(stage), b"", fault)
        else:
            self._ready.add(stage)
            self._listen(stage)
            self._tell_stages()
            log.info("%s holds stage %s", self.name, ", ".join(map(str, sorted(self._ready))))

    def _tell_stages(self) -> None:
        held = frozenset() if self._leaving else frozenset(self._ready & self._wanted)
        self.tell(events.StagesReady(held))
        self.tell(events.Started())

    def _listen(self, stage: int) -> None:
        # The sender's quality decides, as the lower of the two always does: it may change with the policy.
        self.connection.subscribe(self.topics.stage(stage, self.name), qos=1)
        self.connection.subscribe(self.topics.stage_shared(stage), qos=1)

    def _unlisten(self, stage: int) -> None:
        self.connection.unsubscribe(self.topics.stage(stage, self.name))
        self.connection.unsubscribe(self.topics.stage_shared(stage))

    def _ran(self, done: events.StageCompleted | events.StageFailed, following: TaskInput | None) -> None:
        self.call(lambda: self._stage_ran(done, following))

    def _stage_ran(
        self, done: events.StageCompleted | events.StageFailed, following: TaskInput | None
    ) -> None:
        task = done.task
        if self.worker is None or self.worker.running is not task:
            return
        if following is not None:
            self._inputs[task.sensor, task.frame_id, task.stage + 1, task.attempt] = following
        if isinstance(done, events.StageFailed):
            self.dead_letter(self.topics.stage(task.stage, self.name), b"", f"{task.frame_id}: {done.reason}")
        self.tell(done)

    def _publish_state(self, state: DeviceState) -> None:
        state = replace(state, counters={**state.counters, **self.extra_counters()})
        # The first at quality 1: its acknowledgement tells whether we may speak as this device.
        qos, self._born = (0 if self._born else 1), True
        self.connection.publish(
            self.topics.device(self.name), DEVICE_STATE.encode(state), qos=qos, retain=True
        )

    def drain(self) -> None:
        """Hold no stage any more, so that what is queued goes to those who do."""
        self._leaving = True
        self._tell_stages()
        began = self.now()
        while self.connection.connected and self.now() < began + DRAIN_S:
            self.tell(events.Started())
            self.turn()
            worker = self.worker
            idle = worker is None or not (worker.input or len(worker.output) or worker.running)
            if idle and self.now() >= began + UNDERWAY_S:
                break

    def _say_goodbye(self) -> None:
        gone = replace(self.identity, online=False)
        self.connection.publish(self.topics.device(self.name), DEVICE_STATE.encode(gone), qos=1, retain=True)
