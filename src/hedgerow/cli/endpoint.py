"""`hedgerow endpoint`: which container has which address, and where it runs."""

from __future__ import annotations

import click

from hedgerow.model.published import where

from .api import Api, api_option
from .output import Column, Record, output_option, show, show_one

SHOWN_CHARACTERS = 12
"""Of a container's id, as the engines do."""


def container(record: Record) -> str:
    return str(record.get("container") or "")[:SHOWN_CHARACTERS]


def addresses(record: Record) -> list[str]:
    return [str(record[key]) for key in ("address", "address6") if record.get(key)]


def ports(record: Record) -> list[str]:
    """As Docker writes them: `192.0.2.1:8080->80/tcp`, without an address where every one of the host's will do."""
    return [
        f"{where(port['bind'], port['host_port'])}->{port['container_port']}/{port['protocol']}"
        for port in record.get("published") or ()
    ]


COLUMNS = (
    Column("ADDRESS", addresses),
    Column("NETWORK", "network"),
    Column("AGENT", "agent"),
    Column("ENGINE", "engine"),
    Column("CONTAINER", container),
    Column("NAME", "name"),
    Column("PORTS", ports, wide=True),
    Column("INTERFACE", "ifname", wide=True),
    Column("MAC", "mac", wide=True),
    Column("ID", "id", wide=True),
)


@click.group()
def endpoint() -> None:
    """The endpoints: each one container's attachment to one network."""


@endpoint.command()
@click.option("--network", help="Only those on this network.")
@click.option("--agent", help="Only those on this agent.")
@api_option
@output_option
def ls(api: Api, output: str, network: str | None, agent: str | None) -> None:
    """List the endpoints.

    \b
    Examples:
      hedgerow endpoint ls --network dev
      hedgerow endpoint ls -o json
    """
    answer = api.get("/v1/endpoints")
    found = [
        record
        for record in answer["endpoints"]
        if network in (None, record["network"]) and agent in (None, record["agent"])
    ]
    show(found, COLUMNS, output, kind="endpoints", name="id", revision=answer.get("revision"))


@endpoint.command("show")
@click.argument("which")
@api_option
@output_option
def show_endpoint(api: Api, which: str, output: str) -> None:
    """Show the endpoint that has this address, or this id.

    \b
    Example:
      hedgerow endpoint show 9.0.0.2
    """
    show_one(api.get(f"/v1/endpoints/{which}"), COLUMNS, output, kind="endpoint", name="id")
