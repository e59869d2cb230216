"""`hedgerow can`: may one container talk to another? By the configuration, without asking any host."""

from __future__ import annotations

import click

from hedgerow.errors import Refused

from .api import Api, api_option
from .output import VERSION, Record, output_option, write


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO[:PORT]")
@api_option
@output_option
def can(api: Api, source: str, destination: str, output: str) -> None:
    """May FROM begin to talk to TO? Says yes or no, and the place in config.yaml that decides.

    FROM and TO are endpoints, addresses, apps or networks. PORT is 5432, 53/udp or icmp; without one it is asked
    whether anything may pass. What FROM sends from plays no part, so a port behind it is not looked at. Replies to what
    may be opened always come back.

    \b
    Examples:
      hedgerow can dev prod
      hedgerow can /front /api:8080
      hedgerow can web 10.80.0.2:53/udp -o json

    Exit codes: 0 yes, 5 no.
    """
    record = api.get("/v1/can", **{"from": source, "to": destination})
    if output in ("json", "yaml"):
        write({"version": VERSION, "can": record}, output)
    elif output == "name":
        click.echo(record["where"])
    else:
        click.echo(_told(record))
    if not record["allowed"]:
        raise click.exceptions.Exit(Refused.exit_code)


def _told(record: Record) -> str:
    port = "" if record["port"] is None else f"{record['port']}/"
    what = f" {port}{record['protocol']}" if record["protocol"] else ""
    verdict = "yes" if record["allowed"] else "no"
    asked = f"{record['source']} to {record['destination']}{what}"
    return f"{verdict}: {asked}: {record['reason']} (config.yaml: {record['where']})"
