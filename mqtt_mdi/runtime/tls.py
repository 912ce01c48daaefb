"""TLS to a broker, and of our own page: what to trust, and what to say when two sides do not fit."""

import logging
import socket
import ssl
from contextlib import suppress
from pathlib import Path

from mqtt_mdi.errors import ConfigError

log = logging.getLogger(__name__)

PROBE_S = 2.0

# Values of X509_V_ERR_*, as OpenSSL's manual of X509_STORE_CTX_get_error lists them.
_NOT_YET_VALID = 9
_EXPIRED = 10
_OTHER_NAME = {62, 64}

# MQTT 3.1.1, section 3.1: CONNECT without a client id, a user or a password; the answer begins with CONNACK.
_BARE_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x05\x00\x00"
_CONNACK = b"\x20"


def tls_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """What we trust and who we are: TLS 1.2 or newer, with the broker's certificate and name checked.

    Args:
        ca: PEM file of the only authority to trust; None for those that the system trusts.
        cert: PEM file of our own certificate, when the broker asks for one.
        key: PEM file of its private key, without a passphrase.

    Raises:
        ConfigError: when a file is missing, unreadable or not what it should be.
    """
    if (cert is None) != (key is None):
        raise ConfigError("a client certificate takes two files: give both --cert and --key, or neither")
    for file, option in ((ca, "--ca"), (cert, "--cert"), (key, "--key")):
        if file is not None:
            _check_readable(file, option)
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise ConfigError(f"--ca {ca}: no certificate in PEM format in it ({error.reason})") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None and key is not None:
        _load_pair(context, cert, key, "--")
    return context


def server_context(cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """Who we are to browsers: TLS 1.2 or newer. Who comes without TLS is told of in the log.

    Args:
        cert: PEM file of our certificate, with those between it and its authority, if any.
        key: PEM file of its private key, without a passphrase.

    Raises:
        ConfigError: when a file is missing, unreadable or not what it should be.
    """
    if cert is None or key is None:
        raise ConfigError("TLS takes two files: give both --http-cert and --http-key, or neither")
    for file, option in ((cert, "--http-cert"), (key, "--http-key")):
        _check_readable(file, option)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = _Visitor
    _load_pair(context, cert, key, "--http-")
    return context


class _Visitor(ssl.SSLObject):
    """Our side of one connection; asyncio says nothing of a handshake that fails."""

    def do_handshake(self) -> None:
        """As usual, with a word in the log about who speaks HTTP without TLS."""
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                log.warning("somebody asked for the page without TLS: its address begins with https://")
            raise


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path, prefix: str) -> None:
    try:
        # Without a password given, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        raise ConfigError(
            f"{prefix}cert {cert} and {prefix}key {key} do not belong together, are not in PEM format, "
            f"or the key has a passphrase ({error.reason})"
        ) from error


def _check_readable(file: Path, option: str) -> None:
    try:
        file.open("rb").close()
    except OSError as error:
        raise ConfigError(
            f"{option} {file} cannot be read: {error.strerror}; check the path and who may read it"
        ) from error


def explain(error: ssl.SSLError, host: str, ca: Path | None) -> str | None:
    """What is wrong for good between us and the broker, and what to do; None when it may pass."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, host, ca)
    return _explain_alert(str(error))


def _explain_certificate(error: ssl.SSLCertVerificationError, host: str, ca: Path | None) -> str:
    if error.verify_code in _OTHER_NAME:
        return (
            f"its certificate is not for the name {host}: connect by a name that is in it, or make one with "
            f"`mqtt-mdi certs --host {host}`"
        )
    if error.verify_code == _EXPIRED:
        return "its certificate has expired, or this machine's clock is wrong: renew it with `mqtt-mdi certs`"
    if error.verify_code == _NOT_YET_VALID:
        return "its certificate is not valid yet: set this machine's clock"
    trusted = f"the authority in {ca}" if ca else "an authority that this system trusts"
    return (
        f"its certificate was not signed by {trusted} ({error.verify_message}): name the certificate of the "
        f"broker's own authority with --ca or MDI_CA"
    )


def _explain_alert(text: str) -> str | None:
    """What a broker that sent a TLS alert holds against us for good; None when nothing, or it sent none."""
    if "ALERT" not in text:
        return None
    if "CERTIFICATE_REQUIRED" in text or "HANDSHAKE_FAILURE" in text:
        return f"it wants a client certificate: name one with --cert and --key ({text})"
    if "CERTIFICATE" in text or "UNKNOWN_CA" in text:
        return f"it does not take our certificate ({text}): have its own authority sign one for --cert"
    if "PROTOCOL_VERSION" in text:
        return f"it speaks no TLS 1.2 or newer: bring it up to date ({text})"
    return None


def why_hung_up(host: str, port: int, context: ssl.SSLContext | None) -> str | None:
    """Look why a broker hung up before it said a word; None when trying again may help.

    Args:
        host: the broker.
        port: its port.
        context: what we connect with; None without TLS.
    """
    if context is None:
        if _speaks_tls(host, port):
            return "it speaks TLS at this port: write mqtts:// and name its authority with --ca"
        return None
    if _speaks_plain(host, port):
        return "it speaks MQTT without TLS at this port: use its TLS port, often 8883, or mqtt:// for no TLS"
    try:
        with (
            socket.create_connection((host, port), PROBE_S) as raw,
            context.wrap_socket(raw, server_hostname=host) as connected,
        ):
            # With TLS 1.3 it tells only after the handshake what it holds against our certificate. Had we
            # sent anything, its hanging up could come before its words.
            connected.recv(1)
    except ssl.SSLError as error:
        return _explain_alert(str(error))
    except OSError:
        return None
    return None


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # we look which protocol it speaks and send it nothing
    try:
        with socket.create_connection((host, port), PROBE_S) as raw, context.wrap_socket(raw):
            return True
    except ssl.SSLError as error:
        return "ALERT" in str(error)
    except OSError:
        return False


def _speaks_plain(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), PROBE_S) as raw:
        raw.sendall(_BARE_CONNECT)
        return raw.recv(1) == _CONNACK
    return False
