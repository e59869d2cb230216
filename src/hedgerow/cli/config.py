"""`hedgerow config`: what can be said of a config.yaml without a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hedgerow.addressing.blocks import block_count
from hedgerow.config.load import check_file
from hedgerow.config.written import written_allow, written_walls
from hedgerow.errors import BadInput
from hedgerow.model.network import ClusterSpec, NetworkSpec
from hedgerow.policy.reach import may_reach

from .network import inside
from .output import VERSION, Column, output_option, table, write


@click.group()
def config() -> None:
    """config.yaml, in DC/OS's form."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@output_option
def check(file: Path, output: str) -> None:
    """Print every problem of FILE, each with its line and its cure; or the networks, when there is none.

    \b
    Examples:
      hedgerow config check examples/lab.yaml
      hedgerow config check -o json /etc/hedgerow/config.yaml

    Exit codes: 0 no problem, 2 problems, or no such file.
    """
    checked = check_file(file)
    networks = checked.spec.networks if checked.spec else ()
    found = [network_record(spec) | {"reaches": reached(spec, networks)} for spec in networks]
    if output in ("json", "yaml"):
        problems = [asdict(problem) for problem in checked.problems]
        warnings = [asdict(warning) for warning in checked.warnings]
        write({"version": VERSION, "problems": problems, "warnings": warnings, "networks": found}, output)
    else:
        for problem in checked.problems:
            click.echo(problem)
        for warning in checked.warnings:
            click.echo(f"{warning} (a warning)", err=True)
        if checked.spec:
            tell(file, checked.spec, found, output)
    if checked.problems:
        raise click.exceptions.Exit(BadInput.exit_code)


@config.command()
@click.argument("file", type=click.Choice(["config.yaml", "agent.yaml"]), default="config.yaml")
def keys(file: str) -> None:
    """Print every key of config.yaml or agent.yaml: what it takes, what it means, what holds without it.

    \b
    Examples:
      hedgerow config keys
      hedgerow config keys agent.yaml
    """
    from hedgerow.config import reference

    click.echo(reference.agent_page() if file == "agent.yaml" else reference.config_page(), nl=False)


def tell(file: Path, spec: ClusterSpec, found: list[dict[str, Any]], output: str) -> None:
    """Of a good file: what it makes."""
    if output == "name":
        for record in found:
            click.echo(record["name"])
        return
    off = "" if spec.enable else ", off: dcos_overlay_enable is false"
    click.echo(f"{file}: fine, {len(found)} network{'s' * (len(found) != 1)}{off}\n")
    columns = [column for column in COLUMNS if output == "wide" or not column.wide]
    for line in table(found, columns):
        click.echo(line)


def network_record(spec: NetworkSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "subnet": str(spec.subnet) if spec.subnet else None,
        "prefix": spec.prefix,
        "subnet6": str(spec.subnet6) if spec.subnet6 else None,
        "prefix6": spec.prefix6,
        "enabled": spec.enabled,
        "internal": spec.internal,
        "allow": [written_allow(entry) for entry in spec.allow],
        "walls": written_walls(spec),
        "agents": room(spec),
        "addresses": (1 << (32 - spec.prefix)) - 1 if spec.prefix is not None else None,
    }


def reached(spec: NetworkSpec, networks: Sequence[NetworkSpec]) -> list[str]:
    """The other networks to which its containers may open anything, whichever of the two says so."""
    return [other.name for other in networks if other.name != spec.name and may_reach(spec, other)]


def room(spec: NetworkSpec) -> int:
    """How many agents the network has blocks for."""
    counts = []
    if spec.subnet and spec.prefix is not None:
        counts.append(block_count(spec.subnet, spec.prefix))
    if spec.subnet6 and spec.prefix6 is not None:
        counts.append(block_count(spec.subnet6, spec.prefix6))
    return min(counts)


COLUMNS = (
    Column("NETWORK", "name"),
    Column("SUBNET", lambda record: [n for n in (record["subnet"], record["subnet6"]) if n]),
    Column("AGENTS", "agents"),
    Column("BLOCK", lambda record: [f"/{n}" for n in (record["prefix"], record["prefix6"]) if n is not None]),
    Column("CONTAINERS EACH", "addresses", wide=True),
    Column("REACHES", "reaches"),
    Column("INSIDE", lambda record: inside(record["walls"])),
    Column("INTERNAL", "internal"),
    Column("ENABLED", "enabled"),
)
