"""paho's client with buffers between it and the socket, and its refusals told at no cost.

paho reads a packet's header byte by byte and sends each packet by itself: four to five system calls a
message. Here what has arrived is read at once, and what a turn of the loop publishes leaves together.
Messages without properties, which most are, go past paho's making of them: half of a message's time.
"""

import socket
import ssl
import time
from collections.abc import Callable
from typing import cast

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MessageType, MQTTErrorCode
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.properties import Properties, VariableByteIntegers
from paho.mqtt.reasoncodes import ReasonCode

READ_BYTES = 2**18
MOST_UNSENT = 2**20
"""Bytes that may wait for the socket here; more wait in paho's own queue, as packets."""

_PUBACK = b"\x40\x02"
"""The fixed header of an acknowledgement without reason or properties (MQTT 5, section 3.4)."""

Plain = Callable[[bytes, bytes, int, bool, int], None]
"""Takes topic, payload, quality of service, whether it is retained, and the packet's identifier."""


class BufferedClient(paho.Client):
    """Call `flush` before waiting for the network."""

    on_denied: Callable[[str, ReasonCode], None] = staticmethod(lambda _topic, _reason: None)
    """Told of what the broker did not let us publish; paho's own callback costs 22 us a message."""

    on_plain: Plain = staticmethod(lambda _topic, _payload, _qos, _retain, _mid: None)
    """Told of messages without properties, instead of `on_message`."""

    def __init__(self, client_id: str, *, manual_ack: bool) -> None:
        self._arrived = bytearray(READ_BYTES)
        self._view = memoryview(self._arrived)
        self._taken = self._filled = 0
        self._unsent = bytearray()
        super().__init__(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, manual_ack=manual_ack)

    @property
    def has_arrived(self) -> bool:
        """Whether there is something to read without asking the network."""
        return self._taken < self._filled

    def want_write(self) -> bool:
        """Whether something waits for the network."""
        return bool(self._unsent) or super().want_write()

    def flush(self) -> None:
        """Send what has gathered, as far as the network takes it."""
        while self._unsent or super().want_write():
            if self._sock is None:
                return
            if self._unsent:
                try:
                    sent = super()._sock_send(self._unsent)
                except BlockingIOError:
                    return
                except OSError:
                    # Reading finds out as well, and paho then ends the connection in good order.
                    self._unsent.clear()
                    return
                del self._unsent[:sent]
            else:
                self.loop_write()

    def ack(self, mid: int, qos: int) -> MQTTErrorCode:
        """Acknowledge a message of quality 1 with the other packets of this turn."""
        if qos == 1 and self._sock is not None:
            self._unsent += _PUBACK + mid.to_bytes(2, "big")
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _packet_queue(
        self,
        command: int,
        packet: bytes | bytearray,
        mid: int,
        qos: int,
        info: paho.MQTTMessageInfo | None = None,
    ) -> MQTTErrorCode:
        # paho's way to the same buffer copies a message twice. What it waits for keeps its place.
        if command != MessageType.PUBLISH or self._out_packet or len(self._unsent) > MOST_UNSENT:
            return super()._packet_queue(command, packet, mid, qos, info)
        self._unsent += packet
        self._last_msg_out = time.monotonic()
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_publish(self) -> MQTTErrorCode:
        header, packet = self._in_packet["command"], memoryview(self._in_packet["packet"])
        qos = header >> 1 & 3
        topic_ends = 2 + int.from_bytes(packet[:2], "big")
        payload_begins = topic_ends + (3 if qos else 1)
        if qos > 1 or len(packet) < payload_begins:
            return super()._handle_publish()  # quality 2, or malformed
        if packet[payload_begins - 1]:
            try:
                return super()._handle_publish()
            except MalformedPacket:
                payload_begins += _properties_bytes(packet[payload_begins - 1 :])
        mid = int.from_bytes(packet[topic_ends : topic_ends + 2], "big") if qos else 0
        self.on_plain(bytes(packet[2:topic_ends]), bytes(packet[payload_begins:]), qos, bool(header & 1), mid)
        return MQTTErrorCode.MQTT_ERR_SUCCESS if self._manual_ack else self.ack(mid, qos)

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._taken == self._filled:
            self._taken = self._filled = 0
            self._filled = self._receive()
        start = self._taken
        self._taken = min(start + bufsize, self._filled)
        # paho copies what it reads, and asks of it no more than any bytes can.
        return cast("bytes", self._view[start : self._taken])

    def _receive(self) -> int:
        # paho knows its socket as something with `recv` alone; it is one of the standard library's.
        opened = cast("socket.socket | None", self._sock)
        if opened is None:
            raise ConnectionError("not connected")
        try:
            return opened.recv_into(self._arrived)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error

    def _sock_send(self, buf: bytes | bytearray) -> int:
        if len(self._unsent) > MOST_UNSENT:
            raise BlockingIOError
        self._unsent += buf
        return len(buf)

    def _sock_close(self) -> None:
        self.flush()
        self._unsent.clear()
        self._taken = self._filled = 0
        super()._sock_close()

    def _do_on_publish(self, mid: int, reason_code: ReasonCode, properties: Properties) -> MQTTErrorCode:
        if reason_code.is_failure:
            self.on_denied(self._out_messages[mid].topic, reason_code)
        return super()._do_on_publish(mid, reason_code, properties)


def _properties_bytes(properties: memoryview) -> int:
    """The bytes, after the first, of properties that paho cannot read: it refuses U+FEFF in a string.

    MQTT 5 allows it (section 1.5.4), and a broker that we hang up on sends it again and again.
    """
    length: int
    width: int
    length, width = VariableByteIntegers.decode(properties)  # type: ignore[no-untyped-call]
    if width + length > len(properties):
        raise MalformedPacket("the properties end behind the packet")
    return width - 1 + length
