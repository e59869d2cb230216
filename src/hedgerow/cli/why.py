"""`hedgerow why`: what stops A from reaching B, from the live data path of both hosts and a probe that was really sent.
The command only prints; the judgement is made by the controller (`hedgerow.why`).
"""

from __future__ import annotations

import click

from .api import Api, api_option
from .output import VERSION, Record, output_option, write
from .target import read_target

MARKS = {"ok": "ok", "stop": "STOP", "none": "-"}
EXIT_TROUBLE, EXIT_REFUSED = 3, 5


@click.command()
@click.argument("source", metavar="A")
@click.argument("target", metavar="B[:PORT[/PROTOCOL]]")
@api_option
@output_option
def why(api: Api, source: str, target: str, output: str) -> None:
    """Does A reach B, and if not, why not?

    A and B are endpoints: by address, name, app, or the container's id. Without a port B is pinged; PROTOCOL is tcp
    unless it is udp. A TCP probe is a connection that is closed at once, a UDP probe an empty datagram. Each line is a
    place on the way; the first that stops it is the cause. docs/reference/why.md lists the causes.

    \b
    Examples:
      hedgerow why 10.64.0.2 10.64.1.2
      hedgerow why /front /db:5432
      hedgerow why web db.prod:53/udp -o json

    Exit codes: 0 it works, 3 something is wrong, 5 config.yaml refuses it.
    """
    asked = read_target(target)
    answer = api.get(
        "/v1/why", **{"from": source, "to": asked.name, "protocol": asked.protocol or "icmp", "port": asked.port}
    )
    if output in ("json", "yaml"):
        write({"version": VERSION, **answer}, output)
    elif output == "name":
        click.echo(answer["cause"]["place"] if answer["cause"] else "works")
    else:
        for line in _lines(answer):
            click.echo(line)
    if answer["cause"]:
        raise click.exceptions.Exit(EXIT_REFUSED if answer["cause"]["by_policy"] else EXIT_TROUBLE)


def _lines(answer: Record) -> list[str]:
    wide = max(len(stage["where"]) for stage in answer["stages"])
    lines = [
        f"{number:>2} {MARKS[stage['state']]:<4}  {stage['where']:<{wide}}  {stage['what']}"
        for number, stage in enumerate(answer["stages"], 1)
    ]
    source, destination = answer["source"]["called"], answer["destination"]["called"]
    cause = answer["cause"]
    if cause is None:
        told = f"works   {source} reaches {destination}, {answer['port']}"
        return [*lines, told, *(f"note    {note}" for note in answer["notes"])]
    line = f", line {cause['line']}" if cause["line"] else ""
    lines += [f"cause   {cause['cause']}", f"where   {cause['thing']}{line}", f"change  {cause['change']}"]
    return lines
