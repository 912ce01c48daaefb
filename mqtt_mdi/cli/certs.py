"""`mqtt-mdi certs`: certificates for a broker with TLS, and the key to sign models with."""

import platform
from pathlib import Path

import click

from mqtt_mdi.cli.options import new_folder
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.private import write_private
from mqtt_mdi.wire.topics import identifier

ALWAYS = ("localhost", "127.0.0.1", "::1")
TAKEN = {"ca", "server", "page", "model"}
SERVERS = {"server": "the broker", "page": "the coordinator's page"}


@click.command(short_help="Make certificates for TLS, and a key to sign models.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    envvar="MDI_OUT",
    help="Folder for keys and certificates; an authority that lies there is used again.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="Name or address under which clients reach the broker and the page, again for each; makes their "
    "certificates anew.  [default: this machine's name, when there is no certificate yet]",
)
@click.option(
    "--client", "clients", multiple=True, help="User to make a client certificate for, again for each."
)
@click.option(
    "--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long they are valid."
)
def certs(out: Path, hosts: tuple[str, ...], clients: tuple[str, ...], days: int) -> None:
    """Make an authority, certificates for the broker, the page and clients, and a key for models.

    Keep ca.key where neither broker nor clients can read it: who has it can pass for any of them. Who has
    model.key says what devices run that are given model.pub; it has no end. Run it again, with the same
    --host or --client, before a certificate ends; authority and model key are kept.

    \b
    Example:
      mqtt-mdi certs --out secrets --host broker.local --host 10.0.0.2
      mqtt-mdi certs --out secrets --client pi-1 --client pi-2
      mqtt-mdi device --broker mqtts://pi-1:password@broker.local --ca secrets/ca.crt
    """  # noqa: D301 -- click's mark for lines to keep
    try:
        from mqtt_mdi.runtime.certificates import issue, open_authority  # noqa: PLC0415 -- an extra
    except ImportError as error:
        raise ConfigError(
            f"certificates need the package cryptography: pip install 'mqtt-mdi[secure]' ({error})"
        ) from error

    for name in clients:
        if identifier(name, "--client") in TAKEN:
            raise ConfigError(f"--client {name}: {name}.crt is the name of another file; choose another user")
    new_folder(out)
    authority, new = open_authority(out)
    click.echo(f"{out}/ca.crt, ca.key: {'new authority' if new else 'kept'}")
    click.echo(f"{out}/model.pub, model.key: {'new key to sign models with' if _model_key(out) else 'kept'}")
    for server, what in SERVERS.items():
        if hosts or not (out / f"{server}.crt").exists():
            names = tuple(dict.fromkeys((hosts or (platform.node(),)) + ALWAYS))
            issue(authority, "server", names[0], names, days).write(out, server)
            click.echo(f"{out}/{server}.crt, {server}.key: for {what} at {', '.join(names)}; {days} days")
    for name in clients:
        issue(authority, "client", name, days=days).write(out, name)
        click.echo(f"{out}/{name}.crt, {name}.key: for the client {name}; {days} days")
    click.echo(
        f"\nmosquitto.conf:  certfile {out}/server.crt\n                 keyfile {out}/server.key\n"
        f"clients:         --ca {out}/ca.crt, or MDI_CA={out}/ca.crt\n"
        f"coordinator:     --sign-with {out}/model.key, or MDI_SIGN_WITH={out}/model.key\n"
        f"                 --http-cert {out}/page.crt --http-key {out}/page.key, for the page\n"
        f"device, source:  --model-key {out}/model.pub, or MDI_MODEL_KEY={out}/model.pub"
    )
    for name in clients:
        click.echo(f"as {name}:  --cert {out}/{name}.crt --key {out}/{name}.key")


def _model_key(out: Path) -> bool:
    """Have a key to sign models with in `out`; whether it is new. Its private half may be elsewhere."""
    from mqtt_mdi.bundle.signature import (  # noqa: PLC0415 -- an extra
        new_key,
        private_pem,
        public_pem,
        read_private_key,
    )

    private, public = out / "model.key", out / "model.pub"
    new = not private.exists() and not public.exists()
    if new:
        write_private(private, private_pem(new_key()))
    if private.exists():
        pem = public_pem(read_private_key(private))
        if public.exists() and public.read_bytes() != pem:
            raise ConfigError(f"{private} is not the key of {public}; bring the right one back")
        public.write_bytes(pem)
    return new
