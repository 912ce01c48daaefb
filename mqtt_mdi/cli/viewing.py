"""What `watch` and `top` share: a process that hears a pipeline and never speaks in it."""

import logging
import secrets

from mqtt_mdi.reporting.text import one_line
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.runtime.shell import Shell
from mqtt_mdi.wire.topics import Topics

log = logging.getLogger(__name__)


class Viewer(Shell):
    """A shell that publishes nothing, so that a user with the role `viewer` can run it."""

    def __init__(self, broker: BrokerURL, pipeline: str, name: str) -> None:
        topics = Topics(pipeline)
        super().__init__(name, topics, Connection(broker, f"mdi-{pipeline}-{name}-{secrets.token_hex(6)}"))

    def dead_letter(self, topic: str, payload: bytes, reason: str) -> None:  # noqa: ARG002 -- the shell's signature
        """Count bytes that could not be understood; to report them is for those who work with them."""
        self.bad_messages += 1
        log.warning("bad message on %s: %s", one_line(topic[:200]), one_line(reason[:500]))
