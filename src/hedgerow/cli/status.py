"""`hedgerow status`: one line when all is well, else one line for each trouble, with what to do next."""

from __future__ import annotations

import click

from .api import Api, api_option
from .output import VERSION, Column, Record, output_option, table, write


@click.command()
@api_option
@output_option
def status(api: Api, output: str) -> None:
    """Is everything fine?

    \b
    Example:
      hedgerow status || hedgerow agent ls

    Exit codes: 0 fine, 3 there is trouble, 4 the controller does not answer.
    """
    answer = api.get("/v1/status")
    troubles = answer.get("troubles") or []
    if output in ("json", "yaml"):
        write({"version": VERSION, **answer}, output)
    elif output == "name":
        for trouble in troubles:
            click.echo(trouble["subject"])
    else:
        click.echo(summary(answer))
        for line in table(troubles, COLUMNS)[1:]:
            click.echo(line)
    if not answer.get("ok", not troubles):
        raise click.exceptions.Exit(3)


def summary(answer: Record) -> str:
    counts = [f"{answer['connected']} of {answer['agents']} agents connected"]
    counts += [f"{answer[key]} {key}" for key in ("networks", "endpoints")]
    word = "fine" if answer.get("ok") else "TROUBLE"
    return f"{word}: {', '.join(counts)}, revision {answer.get('revision')}"


COLUMNS = (
    Column("", lambda trouble: "TROUBLE"),
    Column("", "subject"),
    Column("", "message"),
    Column("", lambda trouble: f"next: {trouble['next']}" if trouble.get("next") else " "),
)
