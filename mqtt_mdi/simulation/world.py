"""The second shell: the very machines of the runtime, on virtual time, links and replayed exits."""

from collections.abc import Callable
from random import Random
from typing import Any, Literal

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.coordinator import Coordinator
from mqtt_mdi.core.fit import misfit
from mqtt_mdi.core.ledger import Tally
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.source import TIMERS, Source
from mqtt_mdi.core.strategies.strategy import ANY
from mqtt_mdi.core.system import ENVELOPE_BYTES, Plan, System
from mqtt_mdi.core.types import DeviceState, FrameKey, Result, Task
from mqtt_mdi.core.worker import Worker
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.simulation.arrivals import Feed
from mqtt_mdi.simulation.compute import Network
from mqtt_mdi.simulation.kernel import Kernel, without_collector
from mqtt_mdi.simulation.network import Channel
from mqtt_mdi.simulation.node import Node, check_stages, first_policy, stages_of
from mqtt_mdi.simulation.report import Report, check, report_of
from mqtt_mdi.simulation.scenario import DeviceSpec, Fault, Link, LinkChange, Scenario, changed

SENSOR = "sim"
LAST_WILL_S = 0.05

Solve = Callable[[System, Policy], Plan]
"""Makes a plan; raises ConfigError where there is none."""


class World:
    """One scenario, ready to run once; `solve` is for scenarios whose strategy plans.

    `decisions` are the planner's with their times, `policies` all that were in force.
    """

    def __init__(self, scenario: Scenario, network: Network, solve: Solve | None = None) -> None:
        self.scenario = scenario
        self.network = network = network.with_frames_of(scenario.frame_bytes)
        self.kernel = Kernel()
        self.policy = first_policy(scenario, network)
        self.results: list[Result] = []
        self.times: list[float] = []
        self.decisions: list[tuple[float, str]] = []
        self.policies: list[tuple[float, str, Policy]] = []
        self._solve = solve
        self._frame_bytes = network.profiles[0].input_bytes - ENVELOPE_BYTES
        self.coordinator = Coordinator(self.policy, network.profiles, Tally(), self._rng("coordinator"))
        if (fault := misfit(self.policy, self.coordinator.stage_count)) is not None:
            raise ConfigError(f"policy.{fault}")
        self.nodes = {spec.id: self._node(spec) for spec in scenario.devices}
        check_stages(self.nodes.values(), self.policy, network)
        sources = [node for node in self.nodes.values() if node.source is not None]
        self._feed = Feed(scenario, self.kernel, sources, self._give_frame, self._rng("arrivals"))
        self._progress: Callable[[int], None] = lambda _answers: None
        self._unstored: list[Result] = []
        self._refused = 0
        self._turns: dict[int, int] = {}
        edges = scenario.edges()
        # States also travel against the direction of a link that tasks take one way only.
        back = {(b, a): link for (a, b), link in edges.items() if (b, a) not in edges}
        for (a, b), link in {**edges, **back}.items():
            self.nodes[a].channels[b] = Channel(self.kernel, link, self._seed(a, b))
        broker = Link(latency_ms=scenario.default_link.latency_ms)
        self._broker = Channel(self.kernel, broker, self._seed("broker"))
        self._orders: dict[type, Callable[[Node, Any], None]] = {
            effects.SetTimer: self._set_timer,
            effects.RunStage: self._run_stage,
            effects.SendTask: self._send_task,
            effects.ReportOutcome: self._report_outcome,
            effects.PublishState: self._publish_state,
            effects.SubmitTask: self._submit_task,
            effects.ObserveBacklog: self._observe_backlog,
            effects.PublishResult: self._publish_result,
            effects.RefuseFrame: self._refuse_frame,
        }

    def run(self, progress: Callable[[int], None] = lambda _answers: None) -> Report:
        """Let it happen; `progress` is told the answers so far after each one."""
        self._progress = progress
        for node in self.nodes.values():
            self._start(node)
        self._tell_coordinator(events.Started())
        for fault in self.scenario.faults:
            self.kernel.at(fault.at_s, self._strike, fault)
        for change in self.scenario.link_changes:
            self.kernel.at(change.at_s, self._change_link, change)
        self._feed.begin()
        with without_collector():
            self.kernel.run(self.scenario.limit_s, self._done)
        check(self.nodes.values(), self.results)
        return report_of(self.scenario.name, self.kernel, self.network, self.nodes, self.results)

    def _seed(self, *names: object) -> str:
        """A seed of its own for each place that draws, so that one more draw moves no other."""
        return "/".join(map(str, (self.scenario.seed, *names)))

    def _rng(self, *names: object) -> Random:
        return Random(self._seed(*names))  # noqa: S311 -- a simulation

    def _node(self, spec: DeviceSpec, boot: int = 0) -> Node:
        count = self.network.stage_count
        role: Literal["source", "device"] = "source" if spec.source else "device"
        identity = DeviceState(spec.id, f"boot-{boot}", role=role, memory=spec.memory)
        worker = Worker(identity, self.policy, count, self._rng(spec.id, boot))
        source = Source(spec.id, self.policy, count) if spec.source else None
        seconds = [profile.macs / spec.macs_per_second for profile in self.network.profiles]
        return Node(spec, stages_of(spec, self.network), seconds, worker, source, boot=boot)

    def _start(self, node: Node) -> None:
        policy = self.coordinator.policy
        self._tell_worker(node, events.PolicyChanged(policy))
        node.wanted = frozenset(policy.placement.get(node.spec.id, node.stages))
        self._tell_worker(node, events.StagesReady(node.wanted))
        self._tell_worker(node, events.Started())

    def _obey(self, node: Node, policy: Policy) -> None:
        """A policy reaches a device: it lets stages go at once and loads others in a while."""
        self._tell_worker(node, events.PolicyChanged(policy))
        self._tell_source(node, events.PolicyChanged(policy))
        if not node.alive:
            return
        wanted = frozenset(node.worker.policy.placement.get(node.spec.id, node.stages))
        if wanted == node.wanted:
            return
        fresh, node.wanted = wanted - node.wanted, wanted
        self._hold(node, node.worker.stages & wanted)
        if fresh:
            self.kernel.after(self.scenario.load_s, self._loaded, node, fresh, node.boot)

    def _loaded(self, node: Node, fresh: frozenset[int], boot: int) -> None:
        if node.boot == boot:
            self._hold(node, (node.worker.stages | fresh) & node.wanted)

    def _hold(self, node: Node, stages: frozenset[int]) -> None:
        if stages != node.worker.stages:
            self._tell_worker(node, events.StagesReady(stages))
            self._tell_worker(node, events.Started())

    def _strike(self, fault: Fault) -> None:
        node = self.nodes[fault.device]
        match fault.what:
            case "dies":
                self._die(node)
            case "returns":
                self._return(node)
            case "changes speed":
                speed = fault.macs_per_second or 1.0
                node.seconds = [profile.macs / speed for profile in self.network.profiles]

    def _change_link(self, change: LinkChange) -> None:
        a, b = change.between
        for channel in (self.nodes[a].channels.get(b), self.nodes[b].channels.get(a)):
            if channel is not None:
                channel.link = changed(channel.link, change)

    def _die(self, node: Node) -> None:
        node.alive = False
        lost = events.NeighbourLost(node.spec.id)
        for other in node.channels:
            self.kernel.after(LAST_WILL_S, self._tell_worker, self.nodes[other], lost)
        self.kernel.after(LAST_WILL_S, self._tell_coordinator, lost)

    def _return(self, node: Node) -> None:
        fresh = self._node(node.spec, node.boot + 1)
        node.worker, node.boot, node.alive, node.timers = fresh.worker, fresh.boot, True, {}
        self._start(node)

    def _give_frame(self, node: Node, number: int) -> None:
        self._tell_source(node, events.FrameArrived(FrameKey(SENSOR, str(number)), self._frame_bytes))

    def _tell_worker(self, node: Node, event: object) -> None:
        if node.alive:
            self._carry_out(node, node.worker.handle(event, self.kernel.now))  # type: ignore[arg-type]

    def _tell_source(self, node: Node, event: object) -> None:
        if node.alive and node.source is not None:
            self._carry_out(node, node.source.handle(event, self.kernel.now))  # type: ignore[arg-type]

    def _tell_coordinator(self, event: object) -> None:
        for effect in self.coordinator.handle(event, self.kernel.now):  # type: ignore[arg-type]
            match effect:
                case effects.SetTimer(key, at):
                    self.kernel.at(at, self._tell_coordinator, events.TimerFired(key))
                case effects.PublishPolicy(policy, origin):
                    self.policies.append((self.kernel.now, origin, policy))
                    for node in self.nodes.values():
                        self._broker.signal(self._obey, node, policy)
                case effects.SolvePlan(system, policy):
                    solved = self._planned(system, policy)
                    self.kernel.after(self.scenario.solve_s, self._tell_coordinator, solved)
                case effects.RecordDecision(reason):
                    self.decisions.append((self.kernel.now, reason))

    def _planned(self, system: System, policy: Policy) -> events.PlanSolved:
        if self._solve is None:
            return events.PlanSolved(None, "this simulation was given no solver")
        try:
            return events.PlanSolved(self._solve(system, policy))
        except ConfigError as error:
            return events.PlanSolved(None, str(error))

    def _carry_out(self, node: Node, orders: list[Any]) -> None:
        """Inputs are not simulated, so that orders about them are nobody's."""
        for effect in orders:
            if (carry := self._orders.get(type(effect))) is not None:
                carry(node, effect)

    def _set_timer(self, node: Node, effect: effects.SetTimer) -> None:
        node.timers[effect.key] = effect.at
        self.kernel.at(effect.at, self._fire, node, effect, node.boot)

    def _fire(self, node: Node, timer: effects.SetTimer, boot: int) -> None:
        if node.boot == boot and node.timers.get(timer.key) == timer.at:
            tell = self._tell_source if timer.key in TIMERS else self._tell_worker
            tell(node, events.TimerFired(timer.key))

    def _run_stage(self, node: Node, effect: effects.RunStage) -> None:
        seconds = node.seconds[effect.task.stage - 1]
        self.kernel.after(seconds, self._completed, node, effect.task, seconds, node.boot)

    def _completed(self, node: Node, task: Task, seconds: float, boot: int) -> None:
        if node.boot == boot:
            label, score = self.network.answer(task.frame_id, task.stage)
            size = self.network.sizes[task.stage - 1]
            self._tell_worker(node, events.StageCompleted(task, label, score, seconds, size))

    def _send_task(self, node: Node, effect: effects.SendTask) -> None:
        device, task = effect.device, effect.task
        if device == ANY and (device := self._next_holder(node, task.stage)) == ANY:
            return  # a broker drops what nobody subscribes to
        channel = node.channels.get(device, self._broker)
        arrival = events.TaskArrived(task, node.spec.id)
        channel.send(task.size, self._tell_worker, self.nodes[device], arrival)

    def _next_holder(self, node: Node, stage: int) -> str:
        """Whom a shared subscription gives the next task to: its members in turn."""
        near = [node, *(self.nodes[name] for name in node.channels)]
        members = [other.spec.id for other in near if other.alive and stage in other.worker.stages]
        turn = self._turns[stage] = self._turns.get(stage, -1) + 1
        return members[turn % len(members)] if members else ANY

    def _report_outcome(self, node: Node, effect: effects.ReportOutcome) -> None:
        event = events.OutcomeReported(effect.outcome)
        if effect.source == node.spec.id:
            self.kernel.after(0.0, self._tell_source, node, event)
        else:
            channel = node.channels.get(effect.source, self._broker)
            channel.signal(self._tell_source, self.nodes[effect.source], event)

    def _publish_state(self, node: Node, effect: effects.PublishState) -> None:
        event = events.NeighbourReported(effect.state)
        for other, channel in node.channels.items():
            channel.signal(self._tell_worker, self.nodes[other], event)
        self._broker.signal(self._tell_coordinator, event)

    def _submit_task(self, node: Node, effect: effects.SubmitTask) -> None:
        self._tell_worker(node, events.TaskArrived(effect.task))

    def _observe_backlog(self, node: Node, _effect: effects.ObserveBacklog) -> None:
        tasks = len(node.worker.input) + len(node.worker.output)
        self.kernel.after(0.0, self._tell_source, node, events.BacklogObserved(tasks))

    def _publish_result(self, node: Node, effect: effects.PublishResult) -> None:
        result = effect.result
        self.results.append(result)
        self.times.append(self.kernel.now)
        self._progress(len(self.results))
        if not self._unstored:
            self._broker.signal(self._store)
        self._unstored.append(result)
        self._feed.answered(node)

    def _store(self) -> None:
        """Results that come while others are on their way are stored with them, as the real writer does."""
        results, self._unstored = self._unstored, []
        truth_of = self.network.truth_of
        graded = tuple(r.label == truth_of(r.frame_id) for r in results if r.status == "ok")
        self._tell_coordinator(events.ResultsStored(tuple(results), graded=graded))

    def _refuse_frame(self, _node: Node, _effect: effects.RefuseFrame) -> None:
        self._refused += 1

    def _done(self) -> bool:
        return len(self.results) + self._refused >= self._feed.given and self._feed.over
