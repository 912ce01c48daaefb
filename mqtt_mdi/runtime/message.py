"""What a connection carries: a message that came, and the one a broker sends when we vanish."""

from dataclasses import dataclass

from mqtt_mdi.core.value import value


@value
class Message:
    """A message that arrived."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    mid: int
    epoch: int = 0
    content_type: str | None = None
    response_topic: str | None = None
    correlation: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when we vanish."""

    topic: str
    payload: bytes
