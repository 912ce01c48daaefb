"""The source: owns each admitted frame under a lease and answers it once."""

import pytest

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.source import LEASE, RETRY_DELAY_S, Effect, Source
from mqtt_mdi.core.types import FrameKey, Outcome, Result, Task

STAGES = 3


def source(**policy: object) -> Source:
    given = {"version": 1, "thresholds": [0.8, 0.6], "lease_s": 2.0, **policy}
    return Source("source", Policy.model_validate(given), STAGES, ("cat", "dog"))


def key(frame: int) -> FrameKey:
    return FrameKey("cam", str(frame))


def arrive(machine: Source, *frames: int, now: float = 0.0) -> list[Effect]:
    orders = [o for frame in frames for o in machine.handle(events.FrameArrived(key(frame), 100), now)]
    machine.check()
    return orders


def hear(machine: Source, frame: int, now: float, attempt: int = 1, **fields: object) -> list[Effect]:
    told = Outcome("cam", str(frame), attempt, 2, "a", **fields)  # type: ignore[arg-type]
    orders = machine.handle(events.OutcomeReported(told), now)
    machine.check()
    return orders


def fire(machine: Source, now: float) -> list[Effect]:
    orders = machine.handle(events.TimerFired(LEASE), now)
    machine.check()
    return orders


def submitted(orders: list[Effect]) -> list[Task]:
    return [order.task for order in orders if isinstance(order, effects.SubmitTask)]


def results(orders: list[Effect]) -> list[Result]:
    return [order.result for order in orders if isinstance(order, effects.PublishResult)]


def timers(orders: list[Effect]) -> list[float]:
    return [order.at for order in orders if isinstance(order, effects.SetTimer)]


def test_a_frame_is_admitted_under_a_lease() -> None:
    assert arrive(source(), 1, now=5.0) == [
        effects.SubmitTask(Task("cam", "1", "source", stage=1, admitted_at=5.0, size=100)),
        effects.SetTimer(LEASE, 7.0),
    ]


def test_an_answer_is_published_once_and_the_bytes_are_released() -> None:
    s = source()
    arrive(s, 1, now=5.0)
    assert hear(s, 1, 5.25, label=1, score=0.9, hops=2) == [
        effects.PublishResult(
            Result(
                "cam",
                "1",
                "ok",
                label=1,
                class_name="dog",
                score=0.9,
                exit_stage=2,
                device="a",
                latency_ms=250.0,
                hops=2,
                attempts=1,
                policy_version=1,
            )
        ),
        effects.ReleaseFrame(key(1)),
    ]
    assert hear(s, 1, 5.3, label=1, score=0.9) == []
    assert (s.ledger.answered, s.ledger.duplicates) == (1, 1)


@pytest.mark.parametrize("given", [{}, {"label": 1}, {"score": 0.9}], ids=["nothing", "label", "score"])
def test_an_outcome_that_says_nothing_is_no_answer(given: dict[str, object]) -> None:
    machine = source(max_attempts=1)
    arrive(machine, 1)
    [answer] = results(hear(machine, 1, now=0.1, **given))
    assert (answer.status, answer.reason) == ("failed", "a sent no label and score of this network")


def test_an_outcome_of_a_stage_that_the_network_lacks_is_tried_again() -> None:
    machine = source()
    arrive(machine, 1)
    told = Outcome("cam", "1", 1, STAGES + 1, "a", label=1, score=0.9)
    assert not results(machine.handle(events.OutcomeReported(told), 0.1))
    assert submitted(fire(machine, now=60.0))


def test_a_label_without_a_name_is_answered_without_one() -> None:
    s = source()
    arrive(s, 1)
    [result] = results(hear(s, 1, 0.1, label=2, score=0.9))
    assert (result.label, result.class_name) == (2, None)


def test_a_lease_that_runs_out_begins_the_next_attempt_with_twice_the_time() -> None:
    s = source(lease_s=1.0, max_attempts=4)
    arrive(s, 1)
    for attempt, now, expires in ((2, 1.0, 3.0), (3, 3.0, 7.0), (4, 7.0, 15.0)):
        orders = fire(s, now)
        assert [task.attempt for task in submitted(orders)] == [attempt]
        assert submitted(orders)[0].admitted_at == 0.0
        assert timers(orders) == [expires]
    assert s.ledger.retried == 3


def test_after_the_last_attempt_the_frame_is_answered_failed_with_the_reason() -> None:
    s = source(lease_s=1.0, max_attempts=2)
    arrive(s, 1)
    fire(s, 1.0)
    orders = fire(s, 3.0)
    [result] = results(orders)
    assert (result.status, result.reason) == ("failed", "no answer in 2 attempts, 3.0 s")
    assert (result.attempts, result.latency_ms, result.exit_stage, result.device) == (2, 3000.0, None, None)
    assert orders[-1] == effects.ReleaseFrame(key(1))
    assert s.ledger.failed == 1
    assert hear(s, 1, 3.1, attempt=2, label=1, score=0.9) == []


def test_an_early_timer_is_set_again() -> None:
    s = source()
    arrive(s, 1)
    assert fire(s, 1.9) == [effects.SetTimer(LEASE, 2.0)]


def test_the_timer_is_not_set_again_for_later_leases() -> None:
    s = source()
    arrive(s, 1)
    assert timers(arrive(s, 2, now=1.0)) == []
    hear(s, 1, 1.5, label=0, score=1.0)
    assert timers(fire(s, 2.0)) == [3.0]


def test_a_late_answer_of_an_earlier_attempt_counts() -> None:
    s = source(lease_s=1.0)
    arrive(s, 1)
    fire(s, 1.0)
    [result] = results(hear(s, 1, 1.2, attempt=1, label=0, score=0.9))
    assert (result.status, result.attempts, result.latency_ms) == ("ok", 2, 1200.0)
    assert hear(s, 1, 1.3, attempt=2, label=0, score=0.9) == []


def test_a_late_failure_of_an_earlier_attempt_does_not() -> None:
    s = source(lease_s=1.0)
    arrive(s, 1)
    fire(s, 1.0)
    assert hear(s, 1, 1.2, attempt=1, reason="engine broke") == []
    assert key(1) in s.leases


@pytest.mark.parametrize("frame", [1, 2])
def test_answers_to_what_was_never_asked_are_ignored(frame: int) -> None:
    s = source()
    arrive(s, 1)
    assert hear(s, frame, 0.1, attempt=2, label=0, score=0.9) == []
    assert s.ledger.duplicates == 1


def test_a_failure_that_may_pass_is_tried_again_after_a_pause() -> None:
    s = source()
    arrive(s, 1)
    assert timers(hear(s, 1, 0.5, reason="queue of a is full", retry=True)) == [0.5 + 2 * RETRY_DELAY_S]
    again = fire(s, 0.5 + 2 * RETRY_DELAY_S)
    assert [task.attempt for task in submitted(again)] == [2]
    assert timers(hear(s, 1, 1.0, attempt=2, reason="full", retry=True)) == [1.0 + 4 * RETRY_DELAY_S]


def test_the_pause_has_a_limit() -> None:
    s = source(max_attempts=100)
    arrive(s, 1)
    now = 0.0
    for attempt in range(1, 90):
        orders = hear(s, 1, now, attempt=attempt, reason="full", retry=True)
        assert not results(orders)
        due = s.leases[key(1)].expires_at
        assert due - now <= 64 * RETRY_DELAY_S + 1e-6
        now = due
        assert len(submitted(fire(s, now))) == 1


def test_a_failure_that_may_pass_is_final_at_the_last_attempt() -> None:
    s = source(max_attempts=1)
    arrive(s, 1)
    [result] = results(hear(s, 1, 0.5, reason="queue of a is full", retry=True))
    assert (result.status, result.reason, result.device) == ("failed", "queue of a is full", "a")
    assert (result.label, result.class_name, result.exit_stage) == (None, None, None)


def test_a_failure_for_good_is_answered_at_once() -> None:
    s = source()
    arrive(s, 1)
    [result] = results(hear(s, 1, 0.5, reason="not a picture"))
    assert (result.status, result.reason, result.attempts) == ("failed", "not a picture", 1)


def test_leases_grow_with_measured_answers() -> None:
    s = source(lease_s=1.0)
    arrive(s, 1, 2)
    hear(s, 1, 0.8, label=0, score=1.0)
    # RFC 6298: 0.8 + 4 * 0.4.
    arrive(s, 3, now=1.0)
    assert s.leases[key(3)].expires_at == pytest.approx(1.0 + 0.8 + 4 * 0.4)


def test_a_burst_that_takes_longer_than_a_lease_is_computed_once() -> None:
    """A lease follows the answers that come while it runs: the first ones are begun before there is any."""
    s = source(lease_s=1.0, window=64)
    arrive(s, *range(64))
    due = 1.0
    for frame in range(64):
        now = (frame + 1) * 0.1
        while due <= now:
            orders = fire(s, due)
            assert not submitted(orders)
            due = min(timers(orders), default=now + 1.0)
        hear(s, frame, now, label=0, score=1.0)
    assert (s.ledger.answered, s.ledger.retried) == (64, 0)


def test_a_frame_that_is_lost_while_others_are_answered_is_tried_again() -> None:
    s = source(lease_s=1.0, window=64)
    arrive(s, *range(5))
    for frame in range(4):
        hear(s, frame, 0.5 + 0.01 * frame, label=0, score=1.0)
    assert [task.attempt for task in submitted(fire(s, 1.0))] == [2]


def test_the_time_of_an_answer_counts_from_its_own_attempt() -> None:
    s = source(lease_s=1.0)
    arrive(s, 1)
    fire(s, 1.0)
    hear(s, 1, 1.4, attempt=2, label=0, score=1.0)
    arrive(s, 2, now=2.0)
    assert s.leases[key(2)].expires_at == pytest.approx(2.0 + 0.4 + 4 * 0.2)


def test_the_window_bounds_what_is_admitted_and_the_rest_waits_its_turn() -> None:
    s = source(window=2)
    assert [task.frame_id for task in submitted(arrive(s, 1, 2, 3, 4))] == ["1", "2"]
    assert [task.frame_id for task in submitted(hear(s, 1, 0.1, label=0, score=1.0))] == ["3"]
    assert [frame for frame, _ in s.pending] == [key(4)]


def test_a_frame_too_many_is_refused_and_may_come_again() -> None:
    s = source(window=1, pending_limit=1)
    reason = "source is full: 1 frames admitted, 1 waiting"
    refusal = [effects.RefuseFrame(key(3), reason), effects.ReleaseFrame(key(3))]
    assert arrive(s, 1, 2, 3)[-2:] == refusal
    assert s.ledger.refused == 1
    hear(s, 1, 0.1, label=0, score=1.0)
    assert arrive(s, 3) == []
    assert key(3) in dict(s.pending)


def test_nothing_need_wait_for_an_open_window() -> None:
    s = source(window=1, pending_limit=0)
    assert len(submitted(arrive(s, 1))) == 1
    assert isinstance(arrive(s, 2)[0], effects.RefuseFrame)


def test_a_lower_limit_refuses_the_newest_of_those_who_wait() -> None:
    s = source(window=1)
    arrive(s, 1, 2, 3, 4)
    orders = s.handle(
        events.PolicyChanged(s.policy.model_copy(update={"version": 2, "pending_limit": 1})), 0.0
    )
    assert [order.frame for order in orders if isinstance(order, effects.RefuseFrame)] == [key(4), key(3)]
    s.check()


def test_a_wider_window_admits_at_once() -> None:
    s = source(window=1)
    arrive(s, 1, 2, 3)
    orders = s.handle(events.PolicyChanged(s.policy.model_copy(update={"version": 2, "window": 2})), 0.0)
    assert [task.frame_id for task in submitted(orders)] == ["2"]


def test_a_frame_sent_again_is_not_admitted_again() -> None:
    s = source(window=1)
    assert arrive(s, 1, 2)[1:] == [effects.SetTimer(LEASE, 2.0)]
    assert arrive(s, 1, 2) == []
    hear(s, 1, 0.1, label=0, score=1.0)
    assert arrive(s, 1) == [effects.ReleaseFrame(key(1))]
    assert (s.ledger.admitted, s.ledger.duplicates) == (2, 3)


def test_a_policys_version_only_rises_and_its_length_must_fit() -> None:
    s = source()
    for version, thresholds in ((5, (0.1, 0.1)), (4, (0.2, 0.2)), (6, (0.3,))):
        s.handle(events.PolicyChanged(Policy(version=version, thresholds=thresholds)), 0.0)
    assert (s.policy.version, s.policy.thresholds) == (5, (0.1, 0.1))


def test_what_it_does_not_know_changes_nothing() -> None:
    s = source()
    assert s.handle(events.Started(), 0.0) == []
    assert s.handle(events.TimerFired("tea"), 0.0) == []


def test_check_finds_a_frame_that_vanished() -> None:
    s = source()
    arrive(s, 1)
    s.leases.clear()
    with pytest.raises(AssertionError, match="with 0 owed"):
        s.check()
