"""The only module that touches paho: one broker connection, driven by its owner's thread.

paho's own thread is not used: the thread that owns the machines also reads and writes the socket,
which saves two hand-overs a message and lets everything that has arrived be taken in one turn.
"""

import logging
import random
import select
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.buffered import BufferedClient
from mqtt_mdi.runtime.message import Message, Will
from mqtt_mdi.runtime.tls import explain, tls_context, why_hung_up

log = logging.getLogger(__name__)

KEEPALIVE_S = 10
CONNECT_TIMEOUT_S = 5.0
BACKOFF_S = (0.2, 10.0)
READS_A_TURN = 256
RECEIVE_MAXIMUM = 1024
MAX_PACKET_BYTES = 64 * 2**20
HEADER_BYTES = 16
"""What a PUBLISH packet without properties has beside topic and payload, at most."""

# MQTT 5, section 3.2.2.2: trying again cannot help.
_NOT_AUTHORISED = "Not authorized"
_REFUSED_FOR_GOOD = {"Bad user name or password", _NOT_AUTHORISED, "Client identifier not valid", "Banned"}
_DENIALS_TOLD = 100
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux alone has it
_TAKEN_OVER = "Session taken over"


class Connection:
    """One MQTT 5 connection that reconnects by itself, with backoff.

    `on_connected` is called after every (re)connection: subscribe and publish the birth there.
    Only `wake` may be called from another thread. `own` is a topic that it is of no use without; the
    will's is one, too.
    """

    def __init__(  # noqa: PLR0913 -- each belongs to MQTT's CONNECT packet
        self,
        url: BrokerURL,
        client_id: str,
        *,
        will: Will | None = None,
        session_expiry_s: int = 0,
        manual_ack: bool = False,
        own: str | None = None,
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self.url = url
        self.connected = False
        self.failed: ConfigError | None = None
        self.on_connected = on_connected
        self._session_expiry_s = session_expiry_s
        self._inbox: list[Message] = []
        self._pause = BACKOFF_S[0]
        self._next_try = 0.0
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)  # noqa: FBT003 -- the socket's own signature
        self._wake_out.setblocking(False)  # noqa: FBT003 -- the socket's own signature
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._asleep = False
        self._woken = False
        self._socket: socket.socket | None = None
        self._writing = False
        self._housekeeping_at = 0.0
        self._epoch = 0
        self._closing = False
        self._greeted = False
        self._hung_up = False
        self._largest = MAX_PACKET_BYTES
        self._own = {own, will.topic if will else None}
        self._denied: set[str] = set()
        client = BufferedClient(client_id, manual_ack=manual_ack)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.on_socket_open = self._socket_opened
        client.on_socket_close = self._socket_closed
        client.on_connect = self._connack
        client.on_disconnect = self._disconnected
        client.on_message = self._arrived
        client.on_plain = self._plain_arrived
        client.on_subscribe = self._suback
        client.on_denied = self._publish_denied
        if url.username is not None:
            client.username_pw_set(url.username, url.password)
        self._tls = tls_context(url.ca, url.cert, url.key) if url.tls else None
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        self._client = client

    def subscribe(self, topic: str, qos: int = 0) -> None:
        """Subscribe; retained messages come at each new subscription."""
        self._client.subscribe(topic, options=SubscribeOptions(qos=qos))

    def unsubscribe(self, topic: str) -> None:
        """Hear no more of a topic."""
        self._client.unsubscribe(topic)

    def publish(  # noqa: PLR0913 -- each belongs to MQTT's PUBLISH packet
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        user_properties: tuple[tuple[str, str], ...] = (),
    ) -> bool:
        """Publish, unless it is more than the broker takes: it would hang up, and again at each try.

        Quality 1 is kept and sent again after a reconnection, 0 is lost without one. So is, with an error in
        the log, what MQTT has no number for while 65,535 others wait for an acknowledgement (MQTT 5, section
        2.2.1).
        """
        if len(topic) + len(payload) + HEADER_BYTES > self._largest:
            fault = "not sent to %s: %d bytes on %s, it takes packets of %d; raise its max_packet_size"
            log.error(fault, self.url, len(payload), topic, self._largest)
            return False
        properties = None
        if content_type or response_topic or correlation is not None or user_properties:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            if content_type:
                properties.ContentType = content_type
            if response_topic:
                properties.ResponseTopic = response_topic
            if correlation is not None:
                properties.CorrelationData = correlation
            if user_properties:
                properties.UserProperty = list(user_properties)
        handed = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        if handed.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            log.error(
                "lost to %s: one on %s; %d wait for its acknowledgement", self.url, topic, self.unsent()
            )
        return True

    def acknowledge(self, message: Message) -> None:
        """Acknowledge a message of quality 1 when `manual_ack` was asked for.

        One from before a reconnection comes again and is acknowledged then: its old number may by now
        belong to another message.
        """
        if message.qos and self.connected and message.epoch == self._epoch:
            self._client.ack(message.mid, message.qos)

    def unsent(self) -> int:
        """Messages of quality 1 or 2 that the broker has not acknowledged yet."""
        return len(self._client._out_messages)  # noqa: SLF001 -- paho offers no public count

    def published_last(self) -> object:
        """The message of quality 1 that was published last, for `has`."""
        return next(reversed(self._client._out_messages.values()))  # noqa: SLF001 -- paho's public way costs a call a message

    def has(self, published: object) -> bool:
        """Whether the broker has acknowledged a message."""
        waiting = self._client._out_messages  # noqa: SLF001 -- as above
        return waiting.get(published.mid) is not published  # type: ignore[attr-defined]

    def wake(self) -> None:
        """Make `poll` return at once; from any thread.

        A loop that is awake sees the mark before it sleeps and needs no byte: that saves four system
        calls a task. Each side writes its own mark before it reads the other's, so no wake is lost.
        """
        self._woken = True
        if not self._asleep:
            return
        try:
            self._wake_out.send(b"\0")
        except OSError:
            return  # full: it is awake already; closed: nobody waits

    def poll(self, timeout: float) -> list[Message]:
        """Read, write and reconnect for up to `timeout` seconds; return at the first news.

        Raises ConfigError when the broker refuses us for good.
        """
        now = time.monotonic()
        if self._socket is None:
            if now >= self._next_try:
                self._connect()
            timeout = max(0.0, min(timeout, self._next_try - now))
        self._watch_writing()
        self._asleep = True
        reading = self._client.has_arrived or _decrypted(self._socket)
        ready = self._selector.select(0.0 if self._woken or reading else timeout)
        self._asleep = self._woken = False
        for key, mask in ready:
            if key.fileobj is self._wake_in:
                self._drain_wakeups()
                continue
            if mask & selectors.EVENT_WRITE:
                self._client.flush()
            reading |= bool(mask & selectors.EVENT_READ)
        if reading:
            self._read()
        if now >= self._housekeeping_at:
            self._housekeeping_at = now + 1.0
            self._client.loop_misc()
        if self.failed is not None:
            raise self.failed
        messages, self._inbox = self._inbox, []
        return messages

    def close(self, within_s: float = 2.0) -> None:
        """Send what waits, say goodbye so that the broker keeps the will to itself, close."""
        deadline = time.monotonic() + within_s
        self._closing = True
        while self.connected and self.failed is None and time.monotonic() < deadline:
            if not self.unsent() and not self._client.want_write():
                break
            self.poll(0.05)
        self._client.disconnect()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _connect(self) -> None:
        if self._hung_up:
            self._hung_up = False
            if fault := why_hung_up(self.url.host, self.url.port, self._tls):
                self._refused(fault)
                return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._session_expiry_s
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        try:
            self._client.connect(
                self.url.host,
                self.url.port,
                KEEPALIVE_S,
                clean_start=self._session_expiry_s == 0,
                properties=properties,
            )
        except ssl.SSLError as error:
            if fault := explain(error, self.url.host, self.url.ca):
                self._refused(fault)
            else:
                self._hung_up = True
                self._retry_later(f"no TLS connection comes about: {error}")
        except (OSError, ValueError) as error:
            self._hung_up = self.url.tls and isinstance(error, ConnectionResetError)
            self._retry_later(str(error))

    def _refused(self, fault: str) -> None:
        self.failed = ConfigError(f"broker {self.url}: {fault}")

    def _retry_later(self, reason: str) -> None:
        self._next_try = time.monotonic() + self._pause * random.uniform(0.75, 1.25)  # noqa: S311 -- jitter
        log.warning("broker %s: %s; trying again in %.1f s", self.url, reason, self._pause)
        self._pause = min(BACKOFF_S[1], 2 * self._pause)

    def _read(self) -> None:
        """Read every packet that has arrived, up to a bound that keeps a flood from starving timers."""
        for _ in range(READS_A_TURN):
            self._client.loop_read()
            if self._socket is None or not (self._client.has_arrived or _readable(self._socket)):
                break
        if self._socket is not None and _QUICKACK is not None:
            # A broker with Nagle's algorithm on holds a small packet until we acknowledge the one before,
            # which a kernel puts off for 40 ms unless told, after each read, not to.
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _watch_writing(self) -> None:
        self._client.flush()
        writing = self._client.want_write()
        if self._socket is not None and writing != self._writing:
            self._writing = writing
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
            self._selector.modify(self._socket, events)

    def _drain_wakeups(self) -> None:
        with suppress(BlockingIOError):
            self._wake_in.recv(4096)

    def _socket_opened(self, _client: paho.Client, _data: object, opened: Any) -> None:  # noqa: ANN401
        # Without this every message of quality 1 waits 44 ms for Nagle and delayed acknowledgement.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = opened
        self._writing = False
        self._greeted = False
        self._selector.register(opened, selectors.EVENT_READ)

    def _socket_closed(self, _client: paho.Client, _data: object, closed: Any) -> None:  # noqa: ANN401
        self._selector.unregister(closed)
        self._socket = None
        if self.connected and not self._closing:
            log.warning("connection to %s lost", self.url)
        self.connected = False
        if not self._greeted and not self._closing:
            self._hung_up = True
            self._retry_later("it hung up before it said a word")
        if self._next_try <= time.monotonic():
            self._next_try = time.monotonic() + self._pause

    def _connack(
        self, _client: paho.Client, _data: object, _flags: object, reason: ReasonCode, told: Properties | None
    ) -> None:
        self._greeted = True
        if reason.is_failure:
            if str(reason) in _REFUSED_FOR_GOOD:
                hint = "check the user, password and id"
                if self.url.username is None and self.url.cert is None:
                    hint = "it wants a user and a password: write mqtt://user:password@host, or mqtts://"
                self.failed = ConfigError(f"broker {self.url} refuses us: {reason}; {hint}")
            else:
                self._retry_later(str(reason))
            return
        self.connected = True
        # MQTT 5, section 3.2.2.3.6.
        self._largest = getattr(told, "MaximumPacketSize", MAX_PACKET_BYTES)
        self._epoch += 1
        self._pause = BACKOFF_S[0]
        log.info("connected to %s", self.url)
        self.on_connected()

    def _disconnected(
        self, client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _props: object
    ) -> None:
        if str(reason) == _TAKEN_OVER:
            name = client._client_id.decode()  # noqa: SLF001 -- paho offers no public reader
            self.failed = ConfigError(
                f"another process connected to {self.url} as {name}: give each its own --id"
            )

    def _suback(
        self, _client: paho.Client, _data: object, _mid: int, reasons: list[ReasonCode], _props: object
    ) -> None:
        if any(str(reason) == _NOT_AUTHORISED for reason in reasons):
            self._refused("it does not let this user subscribe to what we must hear; check the user's role")

    def _publish_denied(self, topic: str, reason: ReasonCode) -> None:
        """Access control keeps us from a topic: fatal for our own, else perhaps a stranger's wish."""
        if topic in self._own and str(reason) == _NOT_AUTHORISED:
            self._refused(
                f"it does not let this user publish on {topic}; check the user's role, and that a device, "
                f"source or sensor has the same --id as its user"
            )
        elif topic not in self._denied and len(self._denied) < _DENIALS_TOLD:
            self._denied.add(topic)
            log.warning("broker %s does not take what we publish on %s: %s", self.url, topic, reason)

    def _plain_arrived(self, topic: bytes, payload: bytes, qos: int, retain: bool, mid: int) -> None:  # noqa: FBT001 -- `Plain`
        self._inbox.append(Message(topic.decode(errors="replace"), payload, qos, retain, mid, self._epoch))

    def _arrived(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        properties = message.properties
        self._inbox.append(
            Message(
                message.topic,
                bytes(message.payload),
                message.qos,
                message.retain,
                message.mid,
                self._epoch,
                getattr(properties, "ContentType", None),
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
                tuple(getattr(properties, "UserProperty", ())),
            )
        )


def _readable(watched: socket.socket) -> bool:
    return _decrypted(watched) or bool(select.select([watched], [], [], 0)[0])


def _decrypted(watched: socket.socket | None) -> bool:
    """Whether TLS holds bytes that the kernel gave out and no select tells of."""
    return isinstance(watched, ssl.SSLSocket) and watched.pending() > 0
