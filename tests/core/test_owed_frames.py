"""A source that is started again goes on with what it owed, and knows what it has answered."""

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.source import Effect, Owed, Source
from mqtt_mdi.core.types import FrameKey, Outcome, Task

LIMITS = {"window": 2, "pending_limit": 1, "max_attempts": 2, "lease_s": 2.0}
POLICY = Policy.model_validate({"thresholds": [0.5], **LIMITS})


def key(name: str) -> FrameKey:
    return FrameKey("cam", name)


def again(*names: str, answered: tuple[str, ...] = ()) -> Source:
    owed = [Owed(key(name), 10, 100) for name in names]
    return Source("source-1", POLICY, 2, owed=owed, answered=[key(name) for name in answered])


def tell(source: Source, event: object, now: float) -> list[Effect]:
    orders = source.handle(event, now)  # type: ignore[arg-type]
    source.check()
    return orders


def outcome(name: str, attempt: int, **more: object) -> events.OutcomeReported:
    return events.OutcomeReported(Outcome("cam", name, attempt, 1, "device-1", **more))  # type: ignore[arg-type]


def submitted(orders: list[Effect]) -> list[Task]:
    return [order.task for order in orders if isinstance(order, effects.SubmitTask)]


def answers(orders: list[Effect]) -> list[tuple[str, str, int]]:
    told = [order.result for order in orders if isinstance(order, effects.PublishResult)]
    return [(result.frame_id, result.status, result.attempts) for result in told]


def test_they_come_first_and_keep_to_the_window() -> None:
    source = again("a", "b", "c")
    begun = submitted(tell(source, events.Started(), 1.0))
    assert [(task.frame_id, task.admitted_at) for task in begun] == [("a", 1.0), ("b", 1.0)]
    after = tell(source, outcome("a", 101, label=0, score=1.0), 2.0)
    assert answers(after) == [("a", "ok", 1)]
    assert [task.frame_id for task in submitted(after)] == ["c"]


def test_they_are_not_refused_though_they_are_more_than_may_wait() -> None:
    source = again("a", "b", "c", "d", "e")
    tell(source, events.Started(), 0.0)
    assert [frame.frame_id for frame, _ in source.pending] == ["c", "d", "e"]
    late = tell(source, events.FrameArrived(key("new"), 10), 0.0)
    assert [order.frame for order in late if isinstance(order, effects.RefuseFrame)] == [key("new")]
    for name in ("a", "b", "c", "d", "e"):
        assert answers(tell(source, outcome(name, 101, label=0, score=1.0), 1.0)) == [(name, "ok", 1)]


def test_their_attempts_have_numbers_that_no_worker_has_seen() -> None:
    source = again("a")
    assert [task.attempt for task in submitted(tell(source, events.Started(), 0.0))] == [101]
    assert [task.attempt for task in submitted(tell(source, events.TimerFired("lease"), 2.0))] == [102]
    failed = tell(source, events.TimerFired("lease"), 6.0)
    assert answers(failed) == [("a", "failed", 2)]


def test_an_answer_to_an_attempt_of_an_earlier_start_is_an_answer_and_no_measurement() -> None:
    source = again("a", "b")
    tell(source, events.Started(), 0.0)
    assert answers(tell(source, outcome("a", 3, label=0, score=1.0), 50.0)) == [("a", "ok", 1)]
    tell(source, outcome("b", 101, reason="full", retry=True), 50.0)
    assert answers(tell(source, outcome("b", 3, reason="old news"), 50.0)) == []
    begun = tell(source, events.FrameArrived(key("c"), 10), 51.0)
    assert [task.frame_id for task in submitted(begun)] == ["c"]
    assert source.leases[key("c")].expires_at == 53.0


def test_a_frame_answered_by_an_earlier_start_is_not_answered_anew() -> None:
    source = again("b", answered=("a",))
    tell(source, events.Started(), 0.0)
    orders = tell(source, events.FrameArrived(key("a"), 10), 0.0)
    assert orders == [effects.ReleaseFrame(key("a"))]
    assert source.ledger.duplicates == 1
    assert tell(source, events.FrameArrived(key("b"), 10), 0.0) == []
