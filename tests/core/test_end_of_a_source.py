"""A source that is told to stop owes nothing when it ends, and its memory is bounded until then."""

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.source import EXPIRIES_SPARED, Source
from mqtt_mdi.core.types import FrameKey, Outcome

POLICY = Policy(thresholds=(0.5,), window=2, lease_s=3600)


def outcome(name: str) -> events.OutcomeReported:
    return events.OutcomeReported(Outcome("cam", name, 1, 1, "device-1", label=0, score=1.0))


def test_waiting_frames_are_refused_and_owed_ones_answered() -> None:
    source = Source("source-1", POLICY, 2)
    for name in ("a", "b", "c"):
        source.handle(events.FrameArrived(FrameKey("cam", name), 1), 0.0)
    refused = [o for o in source.handle(events.Stopping(), 1.0) if isinstance(o, effects.RefuseFrame)]
    assert [order.frame.frame_id for order in refused] == ["c"]
    late = source.handle(events.FrameArrived(FrameKey("cam", "d"), 1), 1.1)
    assert effects.RefuseFrame(FrameKey("cam", "d"), "source-1 is stopping") in late
    answered = source.handle(outcome("a"), 1.2)
    assert [o.result.status for o in answered if isinstance(o, effects.PublishResult)] == ["ok"]
    ended = source.handle(events.Stopped(), 2.0)
    results = [order.result for order in ended if isinstance(order, effects.PublishResult)]
    assert [(result.frame_id, result.status) for result in results] == [("b", "failed")]
    assert results[0].reason is not None
    assert "stopped" in results[0].reason
    source.check()
    assert not source.leases


def test_expiries_of_answered_frames_are_forgotten() -> None:
    source = Source("source-1", POLICY, 2)
    source.handle(events.FrameArrived(FrameKey("cam", "slow"), 1), 0.0)
    for number in range(1000):
        source.handle(events.FrameArrived(FrameKey("cam", str(number)), 1), 0.001 * number)
        source.handle(outcome(str(number)), 0.001 * number)
    assert len(source._expiries) <= 2 * len(source.leases) + EXPIRIES_SPARED + 1
    assert any(isinstance(o, effects.SubmitTask) for o in source.handle(events.TimerFired("lease"), 3600.0))
