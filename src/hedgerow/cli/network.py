"""`hedgerow network`: the networks as the controller has them."""

from __future__ import annotations

import click

from .api import Api, api_option
from .output import Column, Record, output_option, show, show_one


def subnets(record: Record) -> list[str]:
    return [str(record[key]) for key in ("subnet", "subnet6") if record.get(key)]


def blocks(record: Record) -> list[str]:
    return [f"/{record[key]}" for key in ("prefix", "prefix6") if record.get(key) is not None]


def gateways(record: Record) -> list[str]:
    return [str(record[key]) for key in ("gateway", "gateway6") if record.get(key)]


def owners(record: Record) -> list[str]:
    return [f"{prefix['agent']}:{prefix['block']}" for prefix in record.get("prefixes") or ()]


def agents(record: Record) -> list[str] | str:
    chosen = record.get("agents")
    return "all" if chosen is None else chosen or "none"


def inside(record: Record) -> str:
    """What may pass inside: everything (nothing is said), what rules say, or nothing."""
    rules = record.get("rules")
    if rules:
        return f"{len(rules)} rule{'s' * (len(rules) != 1)}"
    return "isolated" if rules is not None or record.get("isolated") else ""


COLUMNS = (
    Column("NETWORK", "name"),
    Column("SUBNET", subnets),
    Column("BLOCK", blocks),
    Column("ENDPOINTS", "endpoints"),
    Column("REACHES", "reaches"),
    Column("INSIDE", inside),
    Column("INTERNAL", "internal"),
    Column("ENABLED", "enabled"),
    Column("VNI", "vni", wide=True),
    Column("GATEWAY", gateways, wide=True),
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
    show(answer["networks"], COLUMNS, output, kind="networks", revision=answer.get("revision"))


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
    show_one(api.get(f"/v1/networks/{name}"), COLUMNS, output, kind="network")
