"""Acknowledgements leave in the order in which messages came (MQTT 5, section 4.6)."""

from hypothesis import given
from hypothesis import strategies as st

from mqtt_mdi.runtime.acknowledger import Acknowledger
from mqtt_mdi.runtime.message import Message


def message(mid: int, qos: int = 1) -> Message:
    return Message("topic", b"", qos, retain=False, mid=mid)


@given(st.permutations(range(8)), st.integers(0, 8))
def test_order_is_kept_and_nothing_runs_ahead(order: list[int], finished: int) -> None:
    acknowledged: list[Message] = []
    acknowledger = Acknowledger(acknowledged.append)
    messages = [message(mid) for mid in range(8)]
    for each in messages:
        acknowledger.came(each)
    for place in order[:finished]:
        acknowledger.done(messages[place])
    done = set(order[:finished])
    first_open = next((mid for mid in range(8) if mid not in done), 8)
    assert [each.mid for each in acknowledged] == list(range(first_open))


def test_quality_0_is_never_acknowledged() -> None:
    acknowledged: list[Message] = []
    acknowledger = Acknowledger(acknowledged.append)
    plain = message(0, qos=0)
    acknowledger.came(plain)
    acknowledger.done(plain)
    assert acknowledged == []
