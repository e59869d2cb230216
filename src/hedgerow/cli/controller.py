"""`hedgerow controller`: be the controller of a cluster, until SIGTERM."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from .main import VERSION

FILE = click.Path(path_type=Path)


@click.command()
@click.option("--config", type=FILE, default="/etc/hedgerow/config.yaml", show_default=True, help="Networks.")
@click.option("--state", type=FILE, default="/var/lib/hedgerow/controller", show_default=True, help="Its store.")
@click.option(
    "--certificates",
    type=FILE,
    default="/etc/hedgerow/certificates",
    show_default=True,
    help="Directory with ca.pem, controller.pem and controller.key.",
)
@click.option("--agents-address", default="0.0.0.0:8081", show_default=True, help="Where agents connect (TLS).")
@click.option("--api-address", default="127.0.0.1:8080", show_default=True, help="The API, for this host only.")
@click.option(
    "--token-file", type=FILE, default="/etc/hedgerow/token", show_default=True, help="File with the API's token."
)
def controller(
    config: Path, state: Path, certificates: Path, agents_address: str, api_address: str, token_file: Path
) -> None:
    """Be the controller: give agents their addresses, serve the API, run the apps.

    CONFIG is imported into an empty store; afterwards it is only compared, see hedgerow status. Sockets that
    systemd passes under the names agents and api are used instead of the addresses.

    \b
    Example:
      hedgerow controller --config /etc/hedgerow/config.yaml --state /var/lib/hedgerow/controller
    """
    import uvloop

    from hedgerow.controller.main import Settings, run

    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    uvloop.run(
        run(
            Settings(
                config=config,
                state=state,
                certificates=certificates,
                token_file=token_file,
                agents_address=agents_address,
                api_address=api_address,
                version=VERSION,
            )
        )
    )
