"""The coordinator's process: results into the database, policies and the model out to devices."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.core import effects, events
from mqtt_mdi.core.coordinator import Coordinator
from mqtt_mdi.core.fit import misfit
from mqtt_mdi.core.ledger import Tally
from mqtt_mdi.core.policy import Policy, merge_patch
from mqtt_mdi.core.types import DeviceState, Result, Truth, Window
from mqtt_mdi.errors import ConfigError, ProtocolError
from mqtt_mdi.runtime.acknowledger import Acknowledger
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.runtime.message import Message, Will
from mqtt_mdi.runtime.shell import Shell, new_boot
from mqtt_mdi.runtime.solver import Solve, Solver, no_planner
from mqtt_mdi.runtime.trust import properties_of, sealed_to_publish
from mqtt_mdi.runtime.writer import Writer
from mqtt_mdi.storage.store import Batch, Store, Written
from mqtt_mdi.wire.messages import (
    COORDINATOR_STATE,
    DEAD_LETTER,
    MAX_DECISION,
    METRICS,
    PATCH,
    POLICY,
    POLICY_REPLY,
    RESULT,
    TRUTH,
    CoordinatorState,
    DeadLetter,
    Metrics,
    PolicyReply,
    state_of,
)
from mqtt_mdi.wire.topics import DROPPED, Topic, Topics

log = logging.getLogger(__name__)

SESSION_S = 7 * 24 * 3600
"""How long the broker keeps results for a coordinator that is down."""

SOLVER = "solver"
LATE = 3
"""Times its limit after which a solver that ignores it is given up."""

Answer = Callable[[PolicyReply], None]


@dataclass(frozen=True)
class CoordinatorSettings:
    """How a coordinator is started; `patch` is a JSON merge patch on the first policy.

    `sign_with` is the PEM file of the key to sign the manifest with; without it the signature in the bundle
    folder, if any, is published. `watch_broker` is for Mosquitto, which tells what it drops.
    """

    broker: BrokerURL
    pipeline: str
    bundle: Path
    database: Path
    patch: str = "{}"
    sign_with: Path | None = None
    watch_broker: bool = False


@dataclass
class Gathered:
    """What the next batch will hold, and the messages to acknowledge once it is stored."""

    results: list[tuple[Result, float]] = field(default_factory=list)
    truths: list[Truth] = field(default_factory=list)
    policies: list[tuple[Policy, str, float]] = field(default_factory=list)
    devices: list[tuple[DeviceState, float]] = field(default_factory=list)
    windows: list[tuple[Window, float]] = field(default_factory=list)
    dead_letters: list[tuple[DeadLetter, float]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)

    def batch(self) -> Batch:
        """What the store writes."""
        return Batch(
            tuple(self.results),
            tuple(self.truths),
            tuple(self.policies),
            tuple(self.devices),
            tuple(self.windows),
            tuple(self.dead_letters),
        )


class CoordinatorShell(Shell):
    """The process beside the database; frames do not pass through it and go on without it."""

    def __init__(self, settings: CoordinatorSettings, solve: Solve = no_planner) -> None:
        topics = Topics(settings.pipeline)
        self.settings = settings
        self.sealed = sealed_to_publish(settings.bundle, settings.sign_with)
        self.manifest = self.sealed.open()
        self.graphs = {stage.index: read_stage(settings.bundle, stage) for stage in self.manifest.stages}
        self.store = Store(settings.database, settings.pipeline)
        totals = self.store.totals()
        self.machine = Coordinator(
            self.store.last_policy() or _first_policy(self.manifest, settings.patch),
            self.manifest.profiles,
            Tally(
                totals.answered,
                totals.failed,
                graded=totals.graded,
                correct=totals.correct,
                exits=Counter(dict(enumerate(totals.exits, 1))),
            ),
            Random(0),  # noqa: S311 -- samples latencies
        )
        if (fault := misfit(self.machine.policy, self.machine.stage_count)) is not None:
            raise ConfigError(f"policy: {fault}")
        self.boot = new_boot()
        self._gone = COORDINATOR_STATE.encode(CoordinatorState(online=False, boot=self.boot))
        connection = Connection(
            settings.broker,
            topics.client_id("coordinator"),
            will=Will(topics.coordinator, self._gone),
            session_expiry_s=SESSION_S,
            manual_ack=True,
        )
        super().__init__("coordinator", topics, connection)
        self.acknowledger = Acknowledger(connection.acknowledge)
        self.writer = Writer(self.store, self._written, self._failing)
        self.solver = Solver(solve, lambda solved: self.call(lambda: self.tell(solved)))
        self._gathered = Gathered()
        self._writing: Gathered | None = None
        self.storage_error: str | None = None
        self.decision: str | None = None
        self.decisions = 0
        self.dead_letters = 0
        # Mosquitto tells of changes, and for a minute: who hears nothing may take it that nothing is new.
        self.broker_dropped = 0 if settings.watch_broker else None
        self.metrics: Metrics | None = None
        self._began = False

    @property
    def unstored(self) -> int:
        """Messages that came and are not in the database yet."""
        return len(self._gathered.messages) + (len(self._writing.messages) if self._writing else 0)

    def serve(self) -> None:
        """Run until stopped; what was stored by then is acknowledged, the rest comes again."""
        self.writer.start()
        try:
            self.run()
        finally:
            self.connection.publish(self.topics.coordinator, self._gone, qos=1, retain=True)
            self.connection.close()
            self.writer.stop()
            self.store.close()

    def connected(self) -> None:
        """Subscribe; our own state coming back says that the retained messages before it have come."""
        self._began = False
        topics = self.topics
        ours = (topics.policy, topics.policy_set, topics.coordinator)
        for topic in (*ours, topics.results(), topics.truth(), topics.deadletter()):
            self.connection.subscribe(topic, qos=1)
        self.connection.subscribe(self.topics.device())
        if self.settings.watch_broker:
            self.connection.subscribe(DROPPED)
        self._publish_state()

    def received(self, message: Message, topic: Topic) -> None:
        """Gather what is stored, tell the machine the rest."""
        self.acknowledger.came(message)
        stored = False
        try:
            stored = self._gather(message, topic)
            if not stored:
                self._hear(message, topic)
        except ProtocolError:
            if topic.kind != "deadletter":  # one about a dead letter would never end
                raise
        finally:
            if stored:
                self._gathered.messages.append(message)  # acknowledged once it is in the database
            else:
                self.acknowledger.done(message)

    def outside(self, message: Message) -> bool:
        """What the broker dropped."""
        expected = message.topic == DROPPED and message.payload.isdigit()
        if expected:
            self.broker_dropped = int(message.payload)
        return expected

    def skipped(self, message: Message) -> None:
        """Without an acknowledgement the broker would hold it against us for good."""
        self.acknowledger.came(message)
        self.acknowledger.done(message)

    def tell(self, event: object) -> None:
        """Give the machine an event and carry out what it orders."""
        for effect in self.machine.handle(event, self.now()):  # type: ignore[arg-type]
            self._carry_out(effect)

    def end_turn(self) -> None:
        """Hand the writer everything gathered while it was busy."""
        if self._writing is None and (batch := self._gathered.batch()) != Batch():
            self._writing, self._gathered = self._gathered, Gathered()
            self.writer.write(batch)

    def _gather(self, message: Message, topic: Topic) -> bool:
        """Put what is to be stored into the next batch; False for anything else."""
        match topic.kind:
            case "results":
                result = RESULT.decode(message.payload)
                if result.sensor != topic.name:
                    raise ProtocolError(f"result of sensor {result.sensor} on the topic of {topic.name}")
                self._gathered.results.append((result, time.time()))
            case "truth":
                truth = TRUTH.decode(message.payload)
                self._gathered.truths.append(Truth(topic.name, truth.frame_id, truth.label))
            case "deadletter":
                self._gathered.dead_letters.append((DEAD_LETTER.decode(message.payload), time.time()))
            case _:
                return False
        return True

    def _hear(self, message: Message, topic: Topic) -> None:
        match topic.kind:
            case "devices" if message.payload:
                self.tell(events.NeighbourReported(state_of(topic.name, message.payload)))
            case "devices":
                self.tell(events.NeighbourLost(topic.name))
            case "policy":
                self.tell(events.PolicyChanged(POLICY.decode(message.payload)))
            case "policy/set":
                self._hear_patch(message)
            case "coordinator/state":
                self._hear_coordinator(COORDINATOR_STATE.decode(message.payload), message)

    def _hear_coordinator(self, state: CoordinatorState, message: Message) -> None:
        """Our own state, or, after our connection was taken, that of a later start."""
        if state.boot == self.boot and not message.retain:
            self._begin()
        elif message.epoch > 1 and state.boot > self.boot:
            pipeline = self.topics.pipeline
            self.fail(
                ConfigError(f"another coordinator of pipeline {pipeline} was started: stop one of them")
            )

    def _hear_patch(self, message: Message) -> None:
        if message.retain:
            raise ProtocolError("a retained patch would be applied at every start; publish it without")
        self._patch(message.payload, lambda reply: self._answer(message, reply))

    def edit(self, payload: bytes, expected: int | None, answer: Answer) -> None:
        """Change the policy as `policy/set` does; in the loop's thread.

        Args:
            payload: A JSON merge patch.
            expected: The version that the change was made for, so that one of two at once is told.
            answer: Called once, in this thread.
        """
        version = self.machine.policy.version
        reason = None
        if not self.connection.connected:
            reason = (
                f"there is no connection to {self.connection.url}: nobody would hear of it, try again later"
            )
        elif expected is not None and expected != version:
            reason = (
                f"version {version} came while version {expected} was edited: look at it, then send again"
            )
        if reason is None:
            self._patch(payload, answer)
        else:
            answer(PolicyReply(accepted=False, version=version, reason=reason))

    def _patch(self, payload: bytes, answer: Answer) -> None:
        try:
            patch = PATCH.decode(payload)
        except ProtocolError as error:
            answer(PolicyReply(accepted=False, version=self.machine.policy.version, reason=str(error)))
        else:
            self.tell(events.PatchRequested(patch, answer))

    def _carry_out(self, effect: object) -> None:
        match effect:
            case effects.SetTimer(key, at):
                self.set_timer(key, at, lambda fired: self.tell(events.TimerFired(fired)))
            case effects.PublishPolicy(policy, origin):
                self._gathered.policies.append((policy, origin, time.time()))
                self.connection.publish(self.topics.policy, POLICY.encode(policy), qos=1, retain=True)
                self._publish_state()
            case effects.AnswerPatch(request, version, reason):
                assert callable(request)
                request(PolicyReply(accepted=reason is None, version=version, reason=reason))
            case effects.SolvePlan(system, policy):
                self.solver.begin(system, policy)
                limit = self.now() + LATE * policy.planning.time_limit_s
                self.set_timer(SOLVER, limit, lambda _key: self.solver.give_up())
            case effects.RecordDecision(reason):
                log.info("planner: %s", reason)
                self.decision = reason[:MAX_DECISION]
                self.decisions += 1
                self._publish_state()
            case effects.RecordDevice(state):
                self._gathered.devices.append((state, time.time()))
            case effects.CloseWindow(window, totals, online):
                self._close_window(window, totals, online)

    def _begin(self) -> None:
        """The retained policy is known by now: publish ours, and the model."""
        if self._began:
            return
        self._began = True
        for stage, graph in self.graphs.items():
            if not self.connection.publish(self.topics.model_stage(stage), graph, qos=1, retain=True):
                fault = f"stage {stage}: its graph of {len(graph)} bytes is more than the broker takes"
                self.fail(ConfigError(f"{fault}; raise its max_packet_size, or cut at more places"))
                return
        # Last, so that who hears it finds the graphs it names.
        manifest, properties = self.sealed.manifest, properties_of(self.sealed)
        self.connection.publish(
            self.topics.manifest, manifest, qos=1, retain=True, user_properties=properties
        )
        self.tell(events.Started())

    def _answer(self, request: Message, reply: PolicyReply) -> None:
        verdict = "accepted" if reply.accepted else f"rejected: {reply.reason}"
        log.info("policy/set %s; version %d is in force", verdict, reply.version)
        theirs = self.topics.policy_result
        topic = request.response_topic or theirs
        self.respond(topic, POLICY_REPLY.encode(reply), request.correlation, theirs)

    def _close_window(self, window: Window, totals: Window, online: int) -> None:
        if window.answered or window.failed or window.graded:
            self._gathered.windows.append((window, time.time() - window.seconds))
        self.metrics = Metrics(
            throughput=window.answered / window.seconds if window.seconds else 0.0,
            accuracy=totals.correct / totals.graded if totals.graded else None,
            answered=totals.answered,
            failed=totals.failed,
            duplicates=totals.duplicates,
            graded=totals.graded,
            exits=totals.exits,
            devices_online=online,
            policy_version=self.machine.policy.version,
            latency_p50_ms=window.latency_p50_ms,
            latency_p95_ms=window.latency_p95_ms,
        )
        self.connection.publish(self.topics.metrics, METRICS.encode(self.metrics), retain=True)

    def _publish_state(self) -> None:
        state = CoordinatorState(
            online=True,
            boot=self.boot,
            policy_version=self.machine.policy.version,
            storage_error=self.storage_error,
            decision=self.decision,
        )
        self.connection.publish(self.topics.coordinator, COORDINATOR_STATE.encode(state), qos=1, retain=True)

    def _written(self, written: Written) -> None:
        self.call(lambda: self._stored(written))

    def _stored(self, written: Written) -> None:
        assert self._writing is not None
        for message in self._writing.messages:
            self.acknowledger.done(message)
        self.dead_letters += len(self._writing.dead_letters)
        self._writing = None
        self._say_storage(None)
        new, duplicates = written.new_results, written.duplicates
        self.tell(events.ResultsStored(new, duplicates, written.graded, written.corrected))

    def _failing(self, reason: str) -> None:
        log.error("results wait for the database: %s", reason)
        self.call(lambda: self._say_storage(reason))

    def _say_storage(self, error: str | None) -> None:
        if error != self.storage_error:
            self.storage_error = error
            self._publish_state()


def _first_policy(manifest: Manifest, patch: str) -> Policy:
    first = Policy(version=1, thresholds=manifest.thresholds)
    try:
        merged = merge_patch(first.model_dump(mode="json"), PATCH.decode(patch.encode()))
        return POLICY.decode(json.dumps(merged).encode())
    except ProtocolError as error:
        raise ConfigError(f"--policy: {error}") from error
