"""The verb ``cclseg sign``."""

from __future__ import annotations

import os
from pathlib import Path

import click

PASSWORD_VARIABLE = "CCLSEG_KEY_PASSWORD"


@click.command()
@click.argument("model", required=False)
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Private key, PEM, on the curve P-256, P-384 or P-521. The password of an encrypted one "
    f"is asked for, or taken from ${PASSWORD_VARIABLE}.",
)
@click.option(
    "-o",
    "--output",
    "signature",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The signature's file [default: MODEL.sig, where it is looked for].",
)
@click.option(
    "--new-key",
    "key_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Make private.pem and public.pem in DIR, and sign with them where MODEL is given.",
)
def sign(
    model: str | None, key: Path | None, signature: Path | None, key_folder: Path | None
) -> None:
    """Sign MODEL together with its sidecar and weight files, without a network.

    The signature has the format of OpenSSF Model Signing. Devices that hold the public key in
    their folder of trusted keys load nothing that is not signed; "cclseg doctor" names the folder.
    """
    if (key is None) == (key_folder is None):
        raise click.UsageError("give a key with --key FILE, or make one with --new-key DIR")
    if model is None and key_folder is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    from ..models import find_model
    from ..signing import new_key, sign_model

    path = find_model(model) if model is not None else None  # before a key is made for nothing
    if key_folder is not None:
        key, public = new_key(key_folder)
        click.echo(f"{key}  keep it secret; whoever has it can sign")
        click.echo(f"{public}  copy it to the folder of trusted keys of each device")
    if path is None:
        return
    assert key is not None
    signed = sign_model(path, key, password=_password(key), signature=signature)
    names = ", ".join(file.name for file in signed.files)
    click.echo(f"{signed.signature}  covers {names}")


def _password(key: Path) -> str | None:
    from ..signing import is_encrypted

    if not is_encrypted(key):
        return None
    known = os.environ.get(PASSWORD_VARIABLE)
    return known or str(click.prompt(f"Password of {key}", hide_input=True, err=True))
