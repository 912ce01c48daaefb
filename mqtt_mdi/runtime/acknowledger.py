"""Acknowledgements in the order in which messages came, as MQTT 5 asks for (section 4.6)."""

from collections import OrderedDict
from collections.abc import Callable

from mqtt_mdi.runtime.message import Message


class Acknowledger:
    """Messages of quality 1 that came, each done with at a time of its own."""

    def __init__(self, acknowledge: Callable[[Message], None]) -> None:
        self._acknowledge = acknowledge
        self._done: OrderedDict[int, tuple[Message, bool]] = OrderedDict()

    def came(self, message: Message) -> None:
        """A message arrived; it is acknowledged once it and all before it are done with."""
        if message.qos:
            self._done[id(message)] = (message, False)

    def done(self, message: Message) -> None:
        """The message need not come again."""
        if id(message) not in self._done:
            return
        self._done[id(message)] = (message, True)
        while self._done:
            first, finished = next(iter(self._done.values()))
            if not finished:
                return
            self._acknowledge(first)
            del self._done[id(first)]
