"""`hedgerow network`: the networks as the controller has them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from .api import Api, api_option
from .output import Column, Record, output_option, show, show_one


def subnets(record: Record) -> list[str]:
    return [str(record[key]) for key in ("subnet", "subnet6") if record.get(key)]


def blocks(record: Record) -> list[str]:
    return [f"/{record[key]}" for key in ("prefix", "prefix6") if record.get(key) is not None]


def owners(record: Record) -> list[str]:
    return [f"{prefix['agent']}:{prefix['block']}" for prefix in record.get("prefixes") or ()]


def with_reach(record: Record, every: Sequence[Record]) -> Record:
    """The record, and the other networks that it may talk to, whichever of the two says so."""
    reaches = [
        other["name"]
        for other in every
        if other["name"] != record["name"]
        and (other["enabled"] and record["enabled"])
        and (other["name"] in record["allow"] or record["name"] in other["allow"])
    ]
    return {**record, "reaches": reaches}


COLUMNS = (
    Column("NETWORK", "name"),
    Column("SUBNET", subnets),
    Column("BLOCK", blocks),
    Column("ENDPOINTS", "endpoints"),
    Column("REACHES", "reaches"),
    Column("INTERNAL", "internal"),
    Column("ENABLED", "enabled"),
    Column("VNI", "vni", wide=True),
    Column("GATEWAY", "gateway", wide=True),
    Column("PREFIXES", owners, wide=True),
)


@click.group()
def network() -> None:
    """The networks."""


@network.command()
@api_option
@output_option
def ls(api: Api, output: str) -> None:
    """List the networks, with how many containers are on each.

    \b
    Example:
      hedgerow network ls -o wide
    """
    answer = api.get("/v1/networks")
    every = answer["networks"]
    show(
        [with_reach(record, every) for record in every],
        COLUMNS,
        output,
        kind="networks",
        revision=answer.get("revision"),
    )


@network.command("show")
@click.argument("name")
@api_option
@output_option
def show_network(api: Api, name: str, output: str) -> None:
    """Show one network: its addresses, who has which block, who may talk to it.

    \b
    Example:
      hedgerow network show dcos-1
    """
    record = api.get(f"/v1/networks/{name}")
    show_one(with_reach(record, api.get("/v1/networks")["networks"]), COLUMNS, output, kind="network")
