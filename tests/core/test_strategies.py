"""Each strategy at work in a real worker: what it keeps and whom it sends to."""

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from fleetwork import Fleetwork
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.strategies import local
from mqtt_mdi.core.strategies.registry import STRATEGIES, register
from mqtt_mdi.core.strategies.strategy import ANY, Strategy
from mqtt_mdi.core.types import DeviceState, Task
from mqtt_mdi.core.worker import ROUTED_REMEMBERED, Effect, Worker

STAGES = 3
EVERY = (1, 2, 3)
NAMES = ("mdi-exit", "planner", "no-exit", "local", "ddi", "pipeline")


def worker(strategy: str, *stages: int, **policy: object) -> Worker:
    given_fields = {"version": 1, "thresholds": [0.8, 0.6], "strategy": strategy, **policy}
    machine = Worker(DeviceState("a", "boot-1"), Policy.model_validate(given_fields), STAGES, Random(1))
    machine.handle(events.StagesReady(frozenset(stages)), 0.0)
    return machine


def task(frame: object, stage: int = 1) -> Task:
    return Task("cam", str(frame), "a", stage)


def arrive(machine: Worker, *tasks: Task, sender: str | None = None) -> list[Effect]:
    orders = [order for item in tasks for order in machine.handle(events.TaskArrived(item, sender), 0.0)]
    machine.check()
    return orders


def complete(machine: Worker, score: float = 0.0, seconds: float = 0.1) -> list[Effect]:
    assert machine.running is not None
    orders = machine.handle(events.StageCompleted(machine.running, 7, score, seconds, 50), 0.0)
    machine.check()
    return orders


def hear(machine: Worker, name: str, *stages: int, **state: object) -> list[Effect]:
    report = DeviceState(name, "boot-1", stages=stages, **state)  # type: ignore[arg-type]
    orders = machine.handle(events.NeighbourReported(report), 0.0)
    machine.check()
    return orders


def targets(orders: list[Effect]) -> list[str]:
    return [order.device for order in orders if isinstance(order, effects.SendTask)]


def busy(machine: Worker, count: int, seconds: float = 0.1) -> None:
    """Let a worker know how long a task takes, and wait behind `count` of them."""
    arrive(machine, task("first"))
    complete(machine, score=1.0, seconds=seconds)
    arrive(machine, *(task(f"before-{n}") for n in range(count)))
    assert machine.wait == pytest.approx(count * seconds)


# Every strategy, and those that send nothing or send alike


def test_each_name_is_a_strategy_with_a_line_about_it() -> None:
    assert tuple(STRATEGIES) == NAMES
    assert all(strategy.about for strategy in STRATEGIES.values())
    assert [name for name in NAMES if STRATEGIES[name].planned] == ["planner"]
    assert [name for name in NAMES if not STRATEGIES[name].early_exits] == ["no-exit"]


@pytest.mark.parametrize("stage", EVERY)
def test_local_sends_nothing_whoever_is_idle(stage: int) -> None:
    a = worker("local", *EVERY)
    busy(a, 20)
    assert targets(hear(a, "b", *EVERY, service_s=0.001)) == []
    assert targets(arrive(a, *(task(n, stage) for n in range(20)))) == []
    assert not a.output
    while a.running is not None:
        assert targets(complete(a)) == []
    assert a.counters["exits"] == a.counters["arrived"]
    assert a.counters["sent"] == 0


def test_local_keeps_what_it_cannot_run_until_it_can() -> None:
    a = worker("local", 1)
    hear(a, "b", *EVERY)
    assert arrive(a, task(1, 2)) == []
    assert a.handle(events.StagesReady(frozenset({1, 2})), 0.0) == [effects.RunStage(task(1, 2))]


@pytest.mark.parametrize(("strategy", "exits_at"), [(name, 3 if name == "no-exit" else 1) for name in NAMES])
def test_a_sure_frame_leaves_early_but_never_without_exits(strategy: str, exits_at: int) -> None:
    a = worker(strategy, *EVERY)
    arrive(a, task(1))
    stages = []
    while a.running is not None:
        stages.append(a.running.stage)
        complete(a, score=1.0)
    assert stages == list(range(1, exits_at + 1))


def test_without_exits_tasks_are_shared_out_by_the_same_rules() -> None:
    orders = []
    for strategy in ("mdi-exit", "no-exit"):
        a = worker(strategy, 1, 2)
        arrive(a, *(task(n) for n in range(8)))
        hear(a, "b", 2, 3, service_s=0.1)
        orders.append([order for _ in range(6) for order in complete(a)])
    assert orders[0] == orders[1]
    assert targets(orders[0])


# Data-distributed


@pytest.mark.parametrize(
    ("own", "b", "c", "expected"),
    [(0, 0, 0, "a"), (1, 2, 2, "a"), (2, 2, 3, "a"), (2, 1, 3, "b"), (5, 4, 1, "c"), (1, 0, 1, "b")],
)
def test_ddi_begins_a_frame_where_it_waits_least(own: int, b: int, c: int, expected: str) -> None:
    a = worker("ddi", *EVERY)
    busy(a, own)
    hear(a, "b", *EVERY, service_s=0.1, input_queue=b)
    hear(a, "c", *EVERY, service_s=0.1, input_queue=c)
    sent = targets(arrive(a, task("raw")))
    assert (sent or ["a"]) == [expected]


def test_ddi_keeps_what_is_begun_and_what_it_is_sent() -> None:
    a = worker("ddi", *EVERY)
    busy(a, 3)
    hear(a, "b", *EVERY, service_s=0.1)
    assert targets(arrive(a, task("given"), sender="b")) == ["b"]  # as if from its own source: hops are 0
    assert targets(arrive(a, Task("cam", "sent", "b", 1, hops=1), sender="b")) == []
    assert a.input[-1].frame_id == "sent"
    while a.running is not None:
        assert targets(complete(a, score=0.0)) == []


def test_ddi_shares_frames_evenly_among_equals() -> None:
    a = worker("ddi", *EVERY)
    busy(a, 1)
    for name in ("b", "c"):
        hear(a, name, *EVERY, service_s=0.1)
    sent = Counter(targets(arrive(a, *(task(n) for n in range(29)))))
    assert sent == {"b": 10, "c": 10}
    assert len(a.input) + 1 == 10


# Pipeline


def test_a_pipeline_sends_to_whoever_the_broker_picks() -> None:
    a = worker("pipeline", 1, 2)
    hear(a, "b", 2, 3)
    arrive(a, task(1))
    assert targets(complete(a)) == [ANY]
    assert a.neighbours["b"].backlog == 0
    # It holds stage 2 as well, so what the broker gives back is its own to run.
    assert arrive(a, Task("cam", "1", "a", 2, hops=1), sender="a")[-1] == effects.RunStage(
        Task("cam", "1", "a", 2, hops=1)
    )
    a.check()


def test_a_pipeline_keeps_what_nobody_else_could_run() -> None:
    a = worker("pipeline", 1, 2)
    hear(a, "b", 3)
    arrive(a, task(1), task(2))
    complete(a)
    assert [item.stage for item in a.input] == [2]
    complete(a)
    assert a.running == Task("cam", "1", "a", 2, size=50)
    complete(a)
    assert a.counters["sent"] == 1


def test_a_pipelines_task_waits_for_somebody_to_hold_its_stage() -> None:
    a = worker("pipeline", 1)
    assert arrive(a, task(1, 2)) == []
    assert targets(hear(a, "b", 3)) == []
    assert targets(hear(a, "c", 2)) == [ANY]


# Planner


def shares(**of: float) -> dict[str, object]:
    return {"a": dict.fromkeys(EVERY, of)}


def test_shares_hold_over_many_tasks_with_little_deviation_on_the_way() -> None:
    wanted = {"a": 0.5, "b": 0.3, "c": 0.2}
    a = worker("planner", *EVERY, shares=shares(**wanted))
    got: Counter[str] = Counter()
    for n in range(1, 2001):
        for name in ("b", "c"):  # they report all done: no wait is longer than another
            hear(a, name, *EVERY)
        orders = arrive(a, task(n))
        got.update(targets(orders) or ["a"])
        if a.running is not None:
            complete(a, score=1.0, seconds=0.0)
        assert all(abs(got[name] - n * share) <= 2 for name, share in wanted.items()), n


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    count=st.integers(1, 400),
    own=st.booleans(),
)
def test_any_shares_are_kept_to_within_two_tasks(parts: list[int], count: int, *, own: bool) -> None:
    names = ["a", "b", "c", "d", "e"] if own else ["b", "c", "d", "e", "f"]
    wanted = {name: part / sum(parts) for name, part in zip(names, parts, strict=False)}
    a = worker("planner", *((1,) if own else ()), shares=shares(**wanted), queue_limit=1000)
    got: Counter[str] = Counter()
    for n in range(1, count + 1):
        for name in wanted.keys() - {"a"}:
            hear(a, name, 1)
        got.update(targets(arrive(a, task(n))) or ["a"])
        if a.running is not None:
            complete(a, score=1.0, seconds=0.0)
        assert all(abs(got[name] - n * share) <= 2 for name, share in wanted.items())


def test_a_share_of_nothing_gets_nothing() -> None:
    a = worker("planner", 1, shares=shares(a=0.0, b=1.0))
    hear(a, "b", 1)
    assert targets(arrive(a, *(task(n) for n in range(20)))) == 20 * ["b"]


@pytest.mark.parametrize(
    ("waits_b", "expected"), [(0.0, {"b", "c"}), (0.09, {"b", "c"}), (0.11, {"c"}), (5.0, {"c"})]
)
def test_a_device_that_makes_tasks_wait_is_passed_over(waits_b: float, expected: set[str]) -> None:
    rule = {"patience_s": 0.1}
    a = worker("planner", 1, shares=shares(b=0.5, c=0.5), planning=rule)
    sent = []
    for n in range(20):
        hear(a, "b", 1, service_s=waits_b, running=1)
        hear(a, "c", 1)
        sent += targets(arrive(a, task(n)))
    assert set(sent) == expected
    assert len(sent) == 20


def test_its_own_queue_counts_as_any_others() -> None:
    a = worker("planner", 1, shares=shares(a=1.0, b=0.0), planning={"patience_s": 0.15})
    busy(a, 1)
    hear(a, "b", 1, service_s=0.1)
    assert targets(arrive(a, task("near"))) == []
    assert targets(arrive(a, task("far"))) == ["b"]  # 0.2 s here, none there


def test_a_device_that_comes_back_within_patience_catches_up() -> None:
    a = worker("planner", 1, shares=shares(b=0.5, c=0.5), planning={"patience_s": 0.1})
    hear(a, "c", 1)
    assert targets(arrive(a, *(task(n) for n in range(4)))) == 4 * ["c"]
    hear(a, "b", 1)
    assert targets(arrive(a, *(task(n) for n in range(4, 10))))[:4] == 4 * ["b"]


def test_new_shares_forget_what_went_where_but_the_same_do_not() -> None:
    a = worker("planner", 1, shares=shares(b=0.5, c=0.5))
    hear(a, "c", 1)
    arrive(a, *(task(n) for n in range(4)))
    hear(a, "b", 1)
    same = a.policy.model_copy(update={"version": 2, "window": 9})
    a.handle(events.PolicyChanged(same), 0.0)
    assert a.routed == {(1, "c"): 4}
    other = Policy.model_validate({**same.model_dump(), "version": 3, "shares": shares(b=0.4, c=0.6)})
    a.handle(events.PolicyChanged(other), 0.0)
    assert not a.routed


def test_without_a_device_of_its_shares_rule_2_decides() -> None:
    a = worker("planner", 1, shares=shares(b=0.5, c=0.5))
    hear(a, "d", 2)
    assert targets(arrive(a, task(1, 2))) == ["d"]
    hear(a, "b", 2, input_queue=a.policy.queue_limit)
    assert targets(arrive(a, task(2, 2))) == ["d"]
    hear(a, "b", 2)
    assert targets(arrive(a, task(3, 2))) == ["b"]


def test_without_any_shares_it_does_as_mdi_exit_does() -> None:
    orders = []
    for strategy in ("planner", "mdi-exit"):
        a = worker(strategy, 1, 2)
        busy(a, 6)
        hear(a, "b", 2, service_s=0.05)
        orders.append([order for _ in range(6) for order in complete(a)])
    assert orders[0] == orders[1]
    assert targets(orders[0])


def test_what_is_its_own_share_waits_here_while_nobody_else_of_the_shares_is_there() -> None:
    a = worker("planner", 1, shares=shares(a=0.5, b=0.5))
    busy(a, 5)
    arrive(a, task("later", 2))
    assert len(a.output) == 1
    a.handle(events.StagesReady(frozenset({1, 2})), 0.0)
    assert targets(hear(a, "d", 1, 2, service_s=0.001)) == []
    assert targets(arrive(a, task("more"), task("later still", 2))) == []
    assert targets(hear(a, "b", 1, 2, service_s=0.001)) == ["b"]


def test_who_was_away_for_long_catches_up_for_a_while_only() -> None:
    a = worker("planner", 1, shares=shares(b=0.5, c=0.5), queue_limit=1000)
    for n in range(2000):
        hear(a, "b", 2)
        arrive(a, task(n, 2))
    sent = []
    for n in range(2000, 3000):
        for name in ("b", "c"):
            hear(a, name, 2)
        sent += targets(arrive(a, task(n, 2)))
    assert sent.index("b") <= ROUTED_REMEMBERED
    assert sent[-100:].count("b") == 50


def test_its_own_share_of_a_stage_that_it_has_not_got_goes_by_rule_2() -> None:
    a = worker("planner", 1, shares=shares(a=1.0))
    assert targets(arrive(a, task(1, 2))) == []
    assert targets(hear(a, "d", 2)) == ["d"]


@pytest.mark.parametrize("strategy", ["mdi-exit", "ddi", "pipeline", "planner"])
def test_nobody_sends_to_the_full_or_to_whom_the_policy_forbids(strategy: str) -> None:
    a = worker(strategy, 1, queue_limit=3, neighbours={"a": ["b", "c"]}, shares=shares(b=0.4, c=0.3, d=0.3))
    hear(a, "b", 2, input_queue=2, running=1)
    hear(a, "d", 2)
    assert [n.state.device for n in a.holders(2)] == []
    assert arrive(a, task(1, 2)) == []
    hear(a, "c", 2, input_queue=1)
    assert [n.state.device for n in a.holders(2)] == ["c"]
    assert a.counters["sent"] == 1


# The registry


def test_a_policy_of_an_unknown_strategy_is_refused_by_the_worker_and_counted() -> None:
    a = worker("ddi", 1)
    a.handle(events.PolicyChanged(Policy(version=2, thresholds=(0.1, 0.1), strategy="tea")), 0.0)
    assert (a.policy.version, a.policy.strategy) == (1, "ddi")
    assert a.counters["policies_refused"] == 1


def test_a_worker_changes_its_strategy_with_the_policy() -> None:
    a = worker("local", *EVERY)
    hear(a, "b", *EVERY)
    busy(a, 3)
    assert targets(arrive(a, task("kept"))) == []
    a.handle(events.PolicyChanged(Policy(version=2, thresholds=(0.8, 0.6), strategy="ddi")), 0.0)
    assert targets(arrive(a, task("shared"))) == ["b"]


def test_the_coordinator_names_the_strategies_there_are() -> None:
    answer = Fleetwork().patch(strategy="tea")
    assert answer.reason == f"strategy: tea is not one of {', '.join(NAMES)}"


@pytest.fixture
def _known() -> Iterator[None]:
    before = dict(STRATEGIES)
    yield
    STRATEGIES.clear()
    STRATEGIES.update(before)


@pytest.mark.usefixtures("_known")
def test_a_strategy_is_registered_once() -> None:
    mine = Strategy("mine", local.keeps, local.target)
    register("mine", mine)
    register("mine", mine)
    assert worker("mine", 1).strategy is mine
    assert Fleetwork().patch(strategy="mine").reason is None
    with pytest.raises(ValueError, match="mine is registered already: choose another name"):
        register("mine", Strategy("other", local.keeps, local.target))
