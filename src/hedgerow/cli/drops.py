"""`hedgerow drops`: what the hedges stopped, by network and reason."""

from __future__ import annotations

import click

from .api import Api, api_option
from .output import Column, output_option, show

COLUMNS = (
    Column("AGENT", "agent"),
    Column("NETWORK", "network"),
    Column("REASON", "reason"),
    Column("PACKETS", "packets"),
    Column("BYTES", "bytes"),
)


@click.command()
@click.option("--network", help="Only those of this network.")
@click.option("--agent", help="Only those on this agent.")
@api_option
@output_option
def drops(api: Api, output: str, network: str | None, agent: str | None) -> None:
    """Packets that were dropped, since each agent's data path was loaded; most first.

    docs/reference/drop-reasons.md says what each reason means and what to do about it.

    \b
    Examples:
      hedgerow drops
      hedgerow drops --network dev -o json

    Exit codes: 0 all agents answered, 3 some did not; those are named on stderr.
    """
    answer = api.get("/v1/drops")
    found = [
        record
        for record in answer["drops"]
        if network in (None, record["network"]) and agent in (None, record["agent"])
    ]
    found.sort(key=lambda record: (-record["packets"], record["agent"], record["network"], record["reason"]))
    silent = answer.get("silent") or []
    show(found, COLUMNS, output, kind="drops", name="reason", silent=silent)
    if silent:
        click.echo(f"silent: {', '.join(silent)}; what was dropped there is not counted here", err=True)
        raise click.exceptions.Exit(3)
