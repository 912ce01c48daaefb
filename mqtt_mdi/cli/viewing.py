"""What `watch`, `top` and `home-assistant` share: a process that hears a pipeline and never speaks in it."""

import logging
import secrets

from mqtt_mdi.reporting.text import one_line
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import Connection
from mqtt_mdi.runtime.shell import Shell
from mqtt_mdi.wire.topics import Topics

log = logging.getLogger(__name__)


class Viewer(Shell):
    """A shell that publishes nothing in the pipeline, so that a user with the role `viewer` can run it.

    `own` is a topic outside it that the process is of no use without.
    """

    def __init__(self, broker: BrokerURL, pipeline: str, name: str, own: str | None = None) -> None:
        topics = Topics(pipeline)
        connection = Connection(broker, topics.client_id(name, secrets.token_hex(6)), own=own)
        super().__init__(name, topics, connection)

    def dead_letter(self, topic: str, payload: bytes, reason: str) -> None:  # noqa: ARG002 -- the shell's signature
        """Count bytes that could not be understood; to report them is for those who work with them."""
        self.bad_messages += 1
        log.warning("bad message on %s: %s", one_line(topic[:200]), one_line(reason[:500]))
