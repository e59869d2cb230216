"""`hedgerow agent`: the agents as the controller has them; with --config, be one."""

from __future__ import annotations

from pathlib import Path

import click

from .api import Api, api_option
from .output import Column, Record, output_option, show, show_one


def state(record: Record) -> str:
    """One word first, since that is what one looks for."""
    if not record.get("connected"):
        return "silent"
    if record.get("applied") is None:
        return "joining"
    return "faults" if record.get("faults") else "ok"


def faults(record: Record) -> list[str]:
    return [f"{fault['row']}: {fault['reason']}" for fault in record.get("faults") or ()]


def vtep(record: Record) -> list[str]:
    found = record.get("vtep") or {}
    return [str(found[key]) for key in ("ip", "ip6", "mac") if found.get(key)]


def blocks(record: Record) -> list[str]:
    return [f"{prefix['network']}:{prefix['block']}" for prefix in record.get("prefixes") or ()]


COLUMNS = (
    Column("AGENT", "name"),
    Column("STATE", state),
    Column("UNDERLAY", "underlay"),
    Column("ENDPOINTS", "endpoints"),
    Column("WAY", "way"),
    Column("APPLIED", "applied"),
    Column("FAULTS", faults),
    Column("INCARNATION", "incarnation", wide=True),
    Column("ADDRESSES", "addresses", wide=True),
    Column("VTEP", vtep, wide=True),
    Column("PREFIXES", blocks, wide=True),
    Column("ID", "id", wide=True),
)


@click.group(invoke_without_command=True)
@click.option(
    "--config", type=click.Path(path_type=Path), help="agent.yaml: run the agent of this host, until SIGTERM."
)
@click.pass_context
def agent(context: click.Context, config: Path | None) -> None:
    """The agents, one on every host that runs containers.

    \b
    Examples:
      hedgerow agent ls
      hedgerow agent --config /etc/hedgerow/agent.yaml
    """
    if config is not None and context.invoked_subcommand is None:
        from .agent import run

        run(config)
    elif context.invoked_subcommand is None:
        click.echo(context.get_help())


@agent.command()
@api_option
@output_option
def ls(api: Api, output: str) -> None:
    """List the agents: who is connected, and whether what was applied there is all right.

    \b
    Example:
      hedgerow agent ls
    """
    answer = api.get("/v1/agents")
    show(answer["agents"], COLUMNS, output, kind="agents", revision=answer.get("revision"))


@agent.command("show")
@click.argument("name")
@api_option
@output_option
def show_agent(api: Api, name: str, output: str) -> None:
    """Show one agent: its addresses, its blocks, and what could not be programmed on it.

    \b
    Example:
      hedgerow agent show n1 -o json
    """
    show_one(api.get(f"/v1/agents/{name}"), COLUMNS, output, kind="agent")
