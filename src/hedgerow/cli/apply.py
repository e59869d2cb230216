"""`hedgerow apply`: a config.yaml into the running cluster."""

from __future__ import annotations

from pathlib import Path

import click

from hedgerow.config.file import read_text

from .api import Api, api_option
from .output import VERSION, output_option, write

WAIT_S = 10


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--wait", default=f"{WAIT_S}s", show_default=True, metavar="TIME", help="For the agents, at most 10s.")
@api_option
@output_option
def apply(api: Api, file: Path, wait: str, output: str) -> None:
    """Change the running cluster to what FILE says: who may talk to whom, all of it in one step, or nothing.

    allow, isolated, rules, internal, attach, agents, hosts and host_services of the networks can change. What else
    differs is told with its line, and then nothing changes. Running containers are judged anew at once.

    \b
    Examples:
      hedgerow apply /etc/hedgerow/config.yaml
      hedgerow apply --wait 0s -o json config.yaml

    Exit codes: 0 applied by every agent, 2 the file is wrong or asks too much, 3 some agents have not applied it yet.
    """
    outcome = api.put("/v1/config", read_text(file), file=str(file))
    revision = outcome["revision"]
    behind = _behind(api, revision, wait)
    for warning in outcome["warnings"]:
        click.echo(f"{warning} (a warning)", err=True)
    if output in ("json", "yaml"):
        write({"version": VERSION, **outcome, "behind": behind}, output)
    elif output == "name":
        for change in outcome["changed"]:
            click.echo(f"{change['network']}.{change['key']}")
    else:
        for change in outcome["changed"]:
            click.echo(f"{change['network']}: {change['key']}")
        click.echo(f"revision {revision}: {len(outcome['changed']) or 'nothing'} changed")
    if behind:
        click.echo(f"not applied yet: {', '.join(behind)}; see: hedgerow agent ls", err=True)
        raise click.exceptions.Exit(3)


def _behind(api: Api, revision: str, wait: str) -> list[str]:
    """The agents that have not applied it when the time is over."""
    agents = api.get("/v1/agents", applied=revision, wait=wait)["agents"]
    return [agent["name"] for agent in agents if not _has(agent["applied"], revision)]


def _has(applied: str | None, wanted: str) -> bool:
    if applied is None:
        return False
    (epoch, number), (wanted_epoch, wanted_number) = applied.split("."), wanted.split(".")
    return epoch == wanted_epoch and int(number) >= int(wanted_number)
