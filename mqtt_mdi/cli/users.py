"""`mqtt-mdi users`: passwords and rights for a Mosquitto with access control."""

import base64
import hashlib
import secrets
from dataclasses import replace
from pathlib import Path

import click
from dotenv import dotenv_values
from pydantic import TypeAdapter, ValidationError

from mqtt_mdi.cli.options import BrokerType, new_folder
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.private import write_private
from mqtt_mdi.wire.access import Users, check_users, mosquitto_acl
from mqtt_mdi.wire.documents import load_yaml

_USERS: TypeAdapter[Users] = TypeAdapter(Users)
_WITH_ID = {"source", "device", "sensor"}

# Passwords are 144 random bits: no number of iterations makes guessing them harder, a high one makes a
# broker on a small board slow to let its devices in.
ITERATIONS = 1000


@click.command(short_help="Give users their passwords and rights at the broker.")
@click.argument("listing", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    envvar="MDI_OUT",
    help="Folder for acl and passwords, for Mosquitto, and NAME.env, for each user's process.",
)
@click.option(
    "--broker",
    type=BrokerType(),
    required=True,
    envvar="MDI_BROKER",
    help="Where users find the broker, like mqtts://broker.local:8883; it will stand in each NAME.env.",
)
def users(listing: Path, out: Path, broker: BrokerURL) -> None:
    """Make Mosquitto's access control list and password file from FILE.

    FILE is YAML: names by pipeline and role. A device, source or sensor has the same name as its --id.
    Run it again after each change, then have Mosquitto reload (SIGHUP): who is new gets a password, who
    is no longer named is shut out, all others keep theirs. For another password, remove the user's line
    from passwords first.

    \b
    Example, and its FILE:
      mqtt-mdi users users.yaml --out secrets --broker mqtts://broker.local
      demo:
        coordinator: [coordinator]
        source: [source-1]
        device: [pi-1, pi-2]
        sensor: [cam1]
        operator: [ann]
        viewer: [screen]
        announcer: [home-announcer]
        home-assistant: [home]
    """  # noqa: D301 -- click's mark for lines to keep
    listed = _read_users(listing)
    named = check_users(listed)
    new_folder(out)
    passwords = out / "passwords"
    before = _read_passwords(passwords)
    lines = {name: before.get(name) for name in named}
    for name, (pipeline, role) in named.items():
        file = out / f"{name}.env"
        password = _password_in(file) if lines[name] else secrets.token_urlsafe(18)
        if lines[name] is None:
            lines[name] = f"{name}:{_hashed(str(password))}"
            click.echo(f"{file}: new {role} of pipeline {pipeline}, with its password")
        if password is not None:
            settings = {
                "MDI_BROKER": replace(broker, username=name, password=password).with_password(),
                "MDI_PIPELINE": pipeline,
            } | ({"MDI_ID": name} if role in _WITH_ID else {})
            write_private(file, "".join(f"{key}={value}\n" for key, value in settings.items()).encode())
    for name in before.keys() - named.keys():
        (out / f"{name}.env").unlink(missing_ok=True)
        click.echo(f"{name}: shut out")
    write_private(passwords, "".join(f"{line}\n" for line in lines.values()).encode())
    write_private(out / "acl", mosquitto_acl(listed).encode())
    click.echo(f"mosquitto.conf:  password_file {passwords}\n                 acl_file {out}/acl")


def _read_users(file: Path) -> Users:
    try:
        return _USERS.validate_python(load_yaml(file.read_bytes(), str(file)))
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"{file} is no list of users by pipeline and role, as `mqtt-mdi users --help` shows one: {error}"
        ) from error


def _password_in(file: Path) -> str | None:
    """The password in a user's settings; None when they were moved away, as they should be."""
    url = dotenv_values(file).get("MDI_BROKER")
    return BrokerURL.parse(url).password if url else None


def _read_passwords(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    return {line.partition(":")[0]: line for line in file.read_text().splitlines() if line}


def _hashed(password: str) -> str:
    """A password as Mosquitto keeps it: PBKDF2 with SHA-512, 12 bytes of salt."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
