"""The worker: MDI-Exit's rules in a machine that must also cope with peers, placements and limits."""

from dataclasses import replace
from random import Random

import pytest

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Echo, Task
from mqtt_mdi.core.worker import REPORT, Effect, Worker

STAGES = 3


def task(frame: int, stage: int = 1, attempt: int = 1, **fields: int) -> Task:
    return Task("cam", str(frame), "source", stage, attempt, **fields)


def worker(*stages: int, **policy: object) -> Worker:
    machine = Worker(
        DeviceState("a", "boot-1"),
        Policy.model_validate({"version": 1, "thresholds": [0.8, 0.6], **policy}),
        STAGES,
        Random(1),
    )
    machine.handle(events.StagesReady(frozenset(stages)), 0.0)
    return machine


def arrive(machine: Worker, *tasks: Task, now: float = 0.0) -> list[Effect]:
    orders = [order for item in tasks for order in machine.handle(events.TaskArrived(item), now)]
    machine.check()
    return orders


def complete(machine: Worker, score: float = 0.0, seconds: float = 0.1, now: float = 0.0) -> list[Effect]:
    assert machine.running is not None
    done = events.StageCompleted(machine.running, label=7, score=score, seconds=seconds, size=50)
    orders = machine.handle(done, now)
    machine.check()
    return orders


def hear(machine: Worker, name: str, *stages: int, now: float = 0.0, **state: object) -> list[Effect]:
    report = DeviceState(name, "boot-1", stages=stages, **state)  # type: ignore[arg-type]
    return machine.handle(events.NeighbourReported(report), now)


def states(orders: list[Effect]) -> list[DeviceState]:
    return [order.state for order in orders if isinstance(order, effects.PublishState)]


def test_an_idle_worker_runs_what_arrives_one_at_a_time() -> None:
    a = worker(1)
    assert arrive(a, task(1), task(2)) == [effects.RunStage(task(1))]
    assert list(a.input) == [task(2)]


def test_a_sure_frame_leaves_and_its_source_hears() -> None:
    a = worker(1)
    arrive(a, task(1, attempt=2, hops=3))
    dropped, report = complete(a, score=0.8)
    assert dropped == effects.DropInput(task(1, stage=2, attempt=2, hops=3, size=50))
    assert isinstance(report, effects.ReportOutcome)
    assert report.source == "source"
    told = report.outcome
    assert (told.frame, told.attempt, told.stage, told.device) == (task(1).frame, 2, 1, "a")
    assert (told.hops, told.label, told.score, told.reason) == (3, 7, 0.8, None)
    assert a.counters["exits"] == 1


def test_the_last_exit_always_answers() -> None:
    a = worker(3)
    arrive(a, task(1, stage=3))
    orders = complete(a, score=-9.0)
    assert [type(order) for order in orders] == [effects.DropInput, effects.ReportOutcome]


def test_an_unsure_frame_goes_on_here_when_nothing_else_waits() -> None:
    a = worker(1, 2)
    arrive(a, task(1))
    assert complete(a, score=0.79) == [effects.RunStage(task(1, stage=2, size=50))]


def test_an_unsure_frame_queues_to_leave_when_others_wait_here() -> None:
    a = worker(1, 2)
    arrive(a, task(1), task(2))
    assert complete(a) == [effects.RunStage(task(2))]
    assert list(a.output) == [task(1, stage=2, size=50)]
    assert not a.input


def test_with_a_long_output_queue_it_stays() -> None:
    a = worker(1, 2, output_threshold=1)
    arrive(a, *(task(frame) for frame in range(6)))
    complete(a)
    complete(a)
    assert len(a.output) == 2
    complete(a)
    assert a.input[-1] == task(2, stage=2, size=50)


def test_what_waits_longest_runs_first_wherever_it_waits() -> None:
    a = worker(1, 2)
    arrive(a, task(1), task(2))
    complete(a)
    arrive(a, task(3))
    assert complete(a) == [effects.RunStage(task(1, stage=2, size=50))]


def test_an_idle_worker_takes_back_what_nobody_took() -> None:
    a = worker(1, 2)
    arrive(a, task(1), task(2))
    complete(a)
    assert complete(a, score=0.9)[-1] == effects.RunStage(task(1, stage=2, size=50))
    assert not len(a.output)


def test_a_task_for_a_stage_not_held_is_forwarded() -> None:
    a = worker(1)
    hear(a, "b", 2)
    assert arrive(a, task(1, stage=2)) == [effects.SendTask("b", task(1, stage=2, hops=1))]


def test_a_task_that_nobody_holds_waits_for_a_holder() -> None:
    a = worker(1)
    hear(a, "b", 3)
    assert arrive(a, task(1, stage=2)) == []
    assert hear(a, "c", 2) == [effects.SendTask("c", task(1, stage=2, hops=1))]


def test_a_task_waits_for_its_stage_to_be_placed_here() -> None:
    a = worker()
    assert arrive(a, task(1)) == []
    assert a.handle(events.StagesReady(frozenset({1})), 0.0) == [effects.RunStage(task(1))]


def test_tasks_of_a_stage_given_up_leave_and_the_others_stay() -> None:
    a = worker(1, 2)
    arrive(a, task(1), task(2), task(3, stage=2))
    hear(a, "b", 1)
    orders = a.handle(events.StagesReady(frozenset({2})), 0.0)
    assert orders == [effects.SendTask("b", task(2, hops=1))]
    assert list(a.input) == [task(3, stage=2)]
    a.check()


def test_a_stage_that_the_network_lacks_fails_for_good() -> None:
    dropped, report = arrive(worker(1), task(1, stage=4))
    assert dropped == effects.DropInput(task(1, stage=4))
    assert isinstance(report, effects.ReportOutcome)
    assert report.outcome.reason == "stage 4 of 3 does not exist"
    assert not report.outcome.retry


def test_a_full_queue_fails_the_attempt_not_the_frame() -> None:
    a = worker(1, queue_limit=2)
    dropped, report = arrive(a, *(task(frame) for frame in range(4)))[-2:]
    assert dropped == effects.DropInput(task(3))
    assert isinstance(report, effects.ReportOutcome)
    assert report.outcome.reason == "queue of a is full"
    assert report.outcome.retry


def test_all_that_is_held_is_bounded_wherever_it_waits() -> None:
    a = worker(1, queue_limit=2)
    for turn in range(5):
        arrive(a, *(task(10 * turn + frame) for frame in range(5)))
        a.handle(events.StagesReady(frozenset()), 0.0)
        a.handle(events.StagesReady(frozenset({1})), 0.0)
    assert len(a.input) + len(a.output) + 1 == 4


def test_a_lower_limit_keeps_what_is_there_and_takes_no_more() -> None:
    a = worker(1, queue_limit=4)
    arrive(a, *(task(frame) for frame in range(5)))
    a.handle(events.PolicyChanged(Policy(version=2, thresholds=(0, 0), queue_limit=1)), 0.0)
    assert len(a.input) == 4
    assert effects.DropInput(task(9)) in arrive(a, task(9))


def test_a_second_delivery_is_ignored_and_keeps_the_first_ones_input() -> None:
    a = worker(1)
    assert arrive(a, task(1), task(2), task(2)) == [effects.RunStage(task(1))]
    assert arrive(a, task(1)) == [effects.DropInput(task(1))]
    assert a.counters["duplicates"] == 2


def test_a_late_second_delivery_is_ignored() -> None:
    a = worker(1)
    arrive(a, task(1))
    complete(a, score=1.0)
    assert arrive(a, task(1)) == [effects.DropInput(task(1))]


def test_another_attempt_runs_when_the_first_is_gone() -> None:
    a = worker(1)
    arrive(a, task(1))
    complete(a, score=1.0)
    assert arrive(a, task(1, attempt=2)) == [effects.RunStage(task(1, attempt=2))]


def test_another_attempt_is_ignored_while_the_first_waits_or_runs_here() -> None:
    a = worker(1, 2)
    arrive(a, task(1), task(2))
    assert arrive(a, task(1, attempt=2)) == [effects.DropInput(task(1, attempt=2))]
    assert arrive(a, task(2, attempt=2)) == [effects.DropInput(task(2, attempt=2))]
    complete(a)
    assert arrive(a, task(1, attempt=3)) == [effects.DropInput(task(1, attempt=3))]


def test_what_was_made_here_is_not_taken_in_again() -> None:
    a = worker(1, 2)
    arrive(a, task(1, stage=2))
    complete(a, score=0.9)
    arrive(a, task(1))
    assert complete(a) == [effects.DropInput(task(1, stage=2, size=50))]
    assert a.counters["duplicates"] == 1


def test_a_failed_stage_is_reported_and_work_goes_on() -> None:
    a = worker(1)
    arrive(a, task(1), task(2))
    report, run = a.handle(events.StageFailed(task(1), "x" * 900, retry=True), 0.0)
    assert isinstance(report, effects.ReportOutcome)
    assert report.outcome.reason == "x" * 500
    assert report.outcome.retry
    assert run == effects.RunStage(task(2))
    a.check()


def test_an_optional_task_is_sent_where_it_waits_less() -> None:
    a = worker(1, 2)
    arrive(a, *(task(frame) for frame in range(4)))
    complete(a, seconds=0.1)
    assert len(a.output) == 1
    # Two wait and one runs here: 0.3 s; none waits there.
    assert hear(a, "b", 2, service_s=0.1) == [effects.SendTask("b", task(0, stage=2, size=50, hops=1))]


def test_unreported_tasks_count_until_the_next_report() -> None:
    a = worker(1)
    hear(a, "b", 2, service_s=0.1)
    hear(a, "c", 2, service_s=0.1)
    sent = arrive(a, *(task(frame, stage=2) for frame in range(10)))
    assert sorted(order.device for order in sent if isinstance(order, effects.SendTask)) == [
        *5 * "b",
        *5 * "c",
    ]
    hear(a, "b", 2, service_s=0.1)
    assert a.neighbours["b"].backlog == 0
    assert a.neighbours["c"].backlog == 5
    sent = arrive(a, *(task(frame, stage=2) for frame in range(10, 15)))
    assert {order.device for order in sent if isinstance(order, effects.SendTask)} == {"b"}


def test_a_full_neighbour_is_not_flooded() -> None:
    a = worker(1, queue_limit=3)
    hear(a, "b", 2, input_queue=1)
    assert len(arrive(a, *(task(frame, stage=2) for frame in range(4)))) == 2
    assert len(a.output) == 2


def test_with_a_full_output_queue_it_pauses_until_one_leaves() -> None:
    a = worker(1, queue_limit=2)
    arrive(a, task(2, stage=2), task(3, stage=2))
    assert arrive(a, task(4)) == []
    sent, run = hear(a, "b", 2, input_queue=1)
    assert sent == effects.SendTask("b", task(2, stage=2, hops=1))
    assert run == effects.RunStage(task(4))


def test_a_full_output_queue_that_stands_still_gives_its_oldest_task_back() -> None:
    a = worker(1, queue_limit=2)
    arrive(a, task(2, stage=3), task(3, stage=2), task(4))
    a.handle(events.PolicyChanged(a.policy), 0.0)
    assert a.running is None
    dropped, report, *_, run = a.handle(events.TimerFired(REPORT), 0.1)
    assert run == effects.RunStage(task(4))
    assert dropped == effects.DropInput(task(2, stage=3))
    assert isinstance(report, effects.ReportOutcome)
    assert report.outcome.reason == "nobody took stage 3"
    assert report.outcome.retry
    a.check()


def test_a_full_output_queue_that_moves_keeps_its_tasks() -> None:
    a = worker(1, queue_limit=2)
    arrive(a, task(1), task(2, stage=2), task(3, stage=2))
    complete(a, score=0.9)
    a.handle(events.TimerFired(REPORT), 0.1)
    assert len(a.output) == 2
    a.handle(events.TimerFired(REPORT), 0.2)
    assert len(a.output) == 1


def test_service_times_are_moving_averages() -> None:
    a = worker(1, 2)
    arrive(a, task(1), task(2), task(3, stage=2))
    complete(a, score=1.0, seconds=0.1)
    complete(a, score=1.0, seconds=0.2)
    complete(a, score=1.0, seconds=0.5)
    told = a.state(0.0)
    assert told.service_by_stage == {1: pytest.approx(0.12), 2: 0.5}
    assert told.service_s == pytest.approx(0.12 + 0.2 * (0.5 - 0.12))


def test_delays_are_half_the_round_trip_of_an_echo() -> None:
    a = worker(1)
    hear(a, "b", 2, now=5.0)
    assert a.neighbours["b"].delay is None
    hear(a, "b", 2, now=6.0, echoes={"a": Echo(stamp=5.5, held_s=0.3)})
    assert a.neighbours["b"].delay == pytest.approx(0.1)
    hear(a, "b", 2, now=7.0, echoes={"a": Echo(stamp=6.5, held_s=0.1), "c": Echo(0.0, 0.0)})
    assert a.neighbours["b"].delay == pytest.approx(0.1 + 0.2 * (0.2 - 0.1))


@pytest.mark.parametrize("echo", [Echo(9.0, 0.0), Echo(5.9, 0.2), Echo(-60.0, 0.0)])
def test_an_echo_from_another_life_measures_nothing(echo: Echo) -> None:
    a = worker(1)
    hear(a, "b", 2, now=6.0, echoes={"a": echo})
    assert a.neighbours["b"].delay is None


def test_echoes_give_neighbours_their_stamp_back() -> None:
    a = worker(1)
    hear(a, "b", 2, now=5.0, stamp=123.0)
    assert a.state(5.5).echoes == {"b": Echo(123.0, 0.5)}


def test_silent_lost_and_leaving_neighbours_are_forgotten() -> None:
    a = worker(1, silence_s=1.0)
    for name in ("b", "c", "d", "e"):
        hear(a, name, 2)
    a.handle(events.NeighbourLost("b"), 0.5)
    hear(a, "c", now=0.5, online=False)
    hear(a, "d", 2, now=0.5)
    a.handle(events.TimerFired(REPORT), 1.2)
    assert list(a.neighbours) == ["d"]


def test_it_is_not_its_own_neighbour() -> None:
    a = worker(1)
    hear(a, "a", 1)
    assert not a.neighbours


def test_a_report_follows_a_change_or_a_third_of_the_silence() -> None:
    a = worker(1, report_interval_s=0.1, silence_s=3.0)
    first = a.handle(events.Started(), 0.0)
    assert effects.SetTimer(REPORT, 0.1) in first
    assert len(states(first)) == 1
    assert a.handle(events.TimerFired(REPORT), 0.1) == [effects.SetTimer(REPORT, 0.2)]
    arrive(a, task(1), task(2))
    [told] = states(a.handle(events.TimerFired(REPORT), 0.2))
    assert (told.stages, told.input_queue, told.output_queue, told.running) == ((1,), 1, 0, 1)
    assert (told.policy_version, told.counters) == (1, {"arrived": 2})
    assert states(a.handle(events.TimerFired(REPORT), 1.1)) == []
    assert len(states(a.handle(events.TimerFired(REPORT), 1.2))) == 1


def test_a_new_start_tells_the_state_anew() -> None:
    a = worker(1)
    a.handle(events.Started(), 0.0)
    assert len(states(a.handle(events.Started(), 0.01))) == 1


def test_an_unknown_timer_does_nothing() -> None:
    assert worker(1).handle(events.TimerFired("tea"), 0.0) == []


def test_a_policys_version_only_rises() -> None:
    a = worker(1)
    newer, older = (Policy(version=version, thresholds=(0.1, 0.1)) for version in (5, 4))
    a.handle(events.PolicyChanged(newer), 0.0)
    a.handle(events.PolicyChanged(older), 0.0)
    a.handle(events.PolicyChanged(newer.model_copy(update={"thresholds": (0.2, 0.2)})), 0.0)
    assert a.policy == newer


@pytest.mark.parametrize("strange", [{"thresholds": [0.1]}, {"placement": {"a": [4]}}])
def test_a_policy_for_another_network_is_refused_and_counted(strange: dict[str, object]) -> None:
    a = worker(1)
    policy = {"version": 9, "thresholds": [0.1, 0.2], **strange}
    a.handle(events.PolicyChanged(Policy.model_validate(policy)), 0.0)
    assert a.policy.version == 1
    assert a.counters["policies_refused"] == 1


def test_check_finds_a_task_that_vanished() -> None:
    a = worker(1)
    arrive(a, task(1), task(2))
    a.input.clear()
    with pytest.raises(AssertionError):
        a.check()


def test_the_task_that_runs_keeps_its_fields() -> None:
    a = worker(1, 2)
    given = task(1, hops=4, size=9)
    arrive(a, given)
    assert complete(a) == [effects.RunStage(replace(given, stage=2, size=50))]
