"""`mqtt-mdi sign`: vouch for a model, on a machine that nobody else reaches."""

from pathlib import Path

import click

from mqtt_mdi.bundle.manifest import MANIFEST_FILE
from mqtt_mdi.bundle.sealed import SIGNATURE_FILE, signature_to_text
from mqtt_mdi.bundle.stages import read_stage


@click.command(short_help="Sign a bundle, for devices that ask for it.")
@click.argument("bundle", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    envvar="MDI_SIGN_WITH",
    help="Private key, as `mqtt-mdi certs` makes it.",
)
def sign(bundle: Path, key: Path) -> None:
    """Write manifest.sig into the folder BUNDLE, after a look whether its graphs are those of its manifest.

    A coordinator publishes it as it is, and needs no key.

    \b
    Example:
      mqtt-mdi sign models/birds --key secrets/model.key
      mqtt-mdi coordinator --bundle models/birds
      mqtt-mdi device --model-key secrets/model.pub
    """  # noqa: D301 -- click's mark for lines to keep
    from mqtt_mdi.bundle.signature import seal  # noqa: PLC0415 -- an extra

    sealed = seal(bundle, key)
    assert sealed.signature is not None
    manifest = sealed.open()
    for spec in manifest.stages:
        read_stage(bundle, spec)
    file = bundle / SIGNATURE_FILE
    file.write_text(signature_to_text(sealed.signature) + "\n")
    click.echo(f"{file}: signs {bundle / MANIFEST_FILE}, {manifest.name} of {manifest.stage_count} stages")
