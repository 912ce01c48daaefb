"""Whose models a process runs: with a key only what was signed with it, else anybody's."""

import logging
from pathlib import Path

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.bundle.sealed import (
    SIGNATURE_PROPERTY,
    Sealed,
    read_sealed,
    signature_from_text,
    signature_to_text,
)
from mqtt_mdi.runtime.message import Message

log = logging.getLogger(__name__)


class Trust:
    """Opens manifests. `unverified` counts those that were taken without a look at their signature."""

    def __init__(self, name: str, key: Path | None) -> None:
        self.unverified = 0
        self._key = None
        if key is None:
            log.warning(
                "UNSIGNED MODELS: %s has no --model-key and runs any model it is given; do so only where you "
                "trust everybody who may publish one",
                name,
            )
        else:
            from mqtt_mdi.bundle.signature import read_public_key  # noqa: PLC0415 -- an extra

            self._key = read_public_key(key)
            log.info("%s runs models signed with the key of %s, and no other", name, key)

    def open(self, sealed: Sealed) -> Manifest:
        """The manifest, if we may run what it names; raises BundleError."""
        if self._key is not None:
            from mqtt_mdi.bundle.signature import verify  # noqa: PLC0415 -- an extra

            verify(sealed, self._key)
        manifest = sealed.open()
        self.unverified += self._key is None
        return manifest


def sealed_in(message: Message) -> Sealed:
    """The manifest in a message; raises BundleError when it has a signature that is none."""
    where = "the manifest received"
    text = dict(message.user_properties).get(SIGNATURE_PROPERTY)
    signature = None if text is None else signature_from_text(text, f"the signature of {where}")
    return Sealed(message.payload, signature, where)


def properties_of(sealed: Sealed) -> tuple[tuple[str, str], ...]:
    """The user properties under which a manifest is published."""
    if sealed.signature is None:
        return ()
    return ((SIGNATURE_PROPERTY, signature_to_text(sealed.signature)),)


def sealed_to_publish(folder: Path, key: Path | None) -> Sealed:
    """The manifest of a bundle, signed with the private key in a file or as its folder has it."""
    if key is not None:
        from mqtt_mdi.bundle.signature import seal  # noqa: PLC0415 -- an extra

        return seal(folder, key)
    sealed = read_sealed(folder)
    if sealed.signature is None:
        log.warning(
            "UNSIGNED MODEL: devices with a --model-key will refuse it; start with --sign-with, or sign %s "
            "with `mqtt-mdi sign`",
            folder,
        )
    return sealed
