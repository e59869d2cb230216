"""`hedgerow lab`: a cluster on this machine, made of namespaces, with real engines."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hedgerow.errors import BadInput
from hedgerow.lab.state import DEFAULT_NAME, Record, require

NAME_VARIABLE = "HEDGEROW_LAB"
name_option = click.option(
    "--name", default=None, envvar=NAME_VARIABLE, help=f"Which lab, where there are several.  [default: {DEFAULT_NAME}]"
)


@click.group("lab")
def lab() -> None:
    """A cluster on this machine: a controller, nodes with Docker and Podman of their own, and an outside.

    Everything lives in namespaces; the machine's own links, routes, firewall and engines stay as they are.
    """


@lab.command()
@click.option("--nodes", default=3, show_default=True, help="How many nodes with engines.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="config.yaml of the cluster.  [default: examples/lab.yaml]"
)
@click.option("--engines", default="docker,podman", show_default=True, help="Which engines every node runs.")
@click.option(
    "--name", default=DEFAULT_NAME, envvar=NAME_VARIABLE, show_default=True, help="Several can be up at once."
)
def up(nodes: int, config: Path | None, engines: str, name: str) -> None:
    """Bring a lab up. One that is up and healthy with the same settings is taken as it is.

    \b
    Examples:
      hedgerow lab up
      hedgerow lab up --name walls --nodes 2 --engines podman --config examples/walls.yaml
    """
    from hedgerow.config.load import load
    from hedgerow.lab import images
    from hedgerow.lab.topology import Lab
    from hedgerow.lab.up import up as bring_up

    path = config or images.checkout() / "examples" / "lab.yaml"
    load(path)
    wanted = Lab(name=name, nodes=nodes, engines=tuple(engines.split(",")))
    record = bring_up(wanted, path.read_text(), lambda line: click.echo(line, err=True))
    _summary(record)


@lab.command()
@click.option("--name", default=DEFAULT_NAME, envvar=NAME_VARIABLE, show_default=True, help="Which lab.")
@click.option("--began", type=float, help="When installing began, in seconds since the epoch.")
@click.option("--svg", type=click.Path(path_type=Path), help="Keep what is shown as a picture.")
def demo(name: str, began: float | None, svg: Path | None) -> None:
    """Bring the default lab up, run DC/OS's example app and show who reaches whom.

    \b
    Example:
      hedgerow lab demo --svg docs/demo.svg
    """
    from hedgerow.lab import images
    from hedgerow.lab.demo import Demo, run
    from hedgerow.lab.topology import Lab

    config = (images.checkout() / "examples" / "lab.yaml").read_text()
    run(Demo(lab=Lab(name=name), config=config, began_s=began, svg=svg))


def _summary(record: Record) -> None:
    from hedgerow.lab import images

    took = f" in {record.took_s['all']:.1f} s" if "all" in record.took_s else ""
    click.echo(f"lab {record.name} is up{took}: {', '.join(record.members)}; API {record.api}")
    name = "" if record.name == DEFAULT_NAME else f"--name {record.name} "
    engine = record.engines[0]
    click.echo(f"try: {images.command()} lab exec {name}n1 -- {engine} run --rm --network dcos-1 busybox ip -o addr")


@lab.command()
@click.option("--name", default=DEFAULT_NAME, envvar=NAME_VARIABLE, show_default=True, help="Which lab.")
def down(name: str) -> None:
    """End a lab and remove all of it, also one whose `up` was interrupted.

    \b
    Example:
      hedgerow lab down --name walls
    """
    from hedgerow.lab.down import down as end

    click.echo(f"lab {name} is gone" if end(name) else f"there was no lab {name}")


@lab.command()
@name_option
@click.option("--json", "as_json", is_flag=True, help="Addresses, sockets, API URL and token.")
def status(name: str | None, as_json: bool) -> None:
    """Show a lab: its nodes, engines, API, and what is wrong with it (exit 3 then).

    \b
    Examples:
      hedgerow lab status
      hedgerow lab status --json
    """
    from hedgerow.lab.report import describe, table

    described = describe(require(name))
    if as_json:
        click.echo(json.dumps(described, indent=2))
    else:
        click.echo(table(described))
    if described["troubles"]:
        raise click.exceptions.Exit(3)


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("node")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def execute(name: str | None, node: str, command: tuple[str, ...]) -> None:
    """Run a command inside a node (n1, n2, ..., controller, lan).

    \b
    Examples:
      hedgerow lab exec n1 -- docker ps
      hedgerow lab exec lan -- ip -br addr
    """
    from hedgerow.lab.enter import replace_with

    if not command:
        raise BadInput("lab exec needs a command", f"hedgerow lab exec {node} -- ip -br addr")
    replace_with(require(name), node, command)
