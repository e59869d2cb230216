"""`hedgerow app`: run what a Marathon definition says, look at it, read its log, take it away."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from hedgerow.errors import BadInput, HedgerowError

from .api import Api, api_option
from .output import Column, Record, output_option, show, show_one, table

WAIT_S = 60.0
POLL_S = 0.2
ADDRESSES_SHOWN = 3
OVER = ("TASK_FINISHED",)


def addresses(record: Record) -> list[str]:
    return [each["ipAddress"] for task in record.get("tasks", [record]) for each in task.get("ipAddresses", [])]


def some_addresses(record: Record) -> str:
    found = addresses(record)
    more = len(found) - ADDRESSES_SHOWN
    return ",".join(found[:ADDRESSES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def running(record: Record) -> str:
    return f"{record['tasksRunning']}/{record['instances']}"


def networks(record: Record) -> list[str]:
    return [str(network.get("name")) for network in record["networks"]]


def image(record: Record) -> object:
    return record["container"].get("docker", {}).get("image", "(the host's files)")


def failure(record: Record) -> str | None:
    last = record.get("lastTaskFailure")
    return f"{last['state']} on {last['host']}: {last['message']}".rstrip(": ") if last else None


COLUMNS = (
    Column("ID", "id"),
    Column("NETWORK", networks),
    Column("RUNNING", running),
    Column("ADDRESSES", some_addresses),
    Column("TYPE", lambda record: record["container"]["type"], wide=True),
    Column("IMAGE", image, wide=True),
    Column("COMMAND", "cmd", wide=True),
    Column("LAST ENDED", failure, wide=True),
)
TASKS = (
    Column("TASK", "id"),
    Column("AGENT", "host"),
    Column("STATE", "state"),
    Column("ADDRESSES", addresses),
    Column("HOST PORTS", "ports"),
    Column("STARTED", "startedAt"),
)


@click.group()
def app() -> None:
    """Apps: so many containers of one kind, kept running, each with an address on a network.

    \b
    Examples:
      hedgerow app run examples/my-networking.json
      hedgerow app ls
    """


@app.command()
@click.argument("file", type=click.File("rb"))
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=WAIT_S, show_default=True, metavar="SECONDS",
              help="How long to wait until all instances run; 0: not at all.")  # fmt: skip
@api_option
@output_option
def run(api: Api, output: str, file: Any, wait_s: float) -> None:
    """Run the app that FILE defines, in Marathon's JSON, old form or new. `-` reads stdin.

    \b
    Example:
      hedgerow app run examples/my-networking.json
    """
    definition = _definition(file)
    created = api.post("/v2/apps", definition)
    for warning in warnings(api.headers.get("warning", "")):
        click.echo(f"warning: {warning}", err=True)
    found = _wait_until_running(api, created["id"], wait_s) if wait_s else created | {"tasks": []}
    show([found], COLUMNS, output, kind="apps", name="id")


@app.command()
@api_option
@output_option
def ls(api: Api, output: str) -> None:
    """List the apps.

    \b
    Example:
      hedgerow app ls -o wide
    """
    show(api.get("/v2/apps", embed="apps.tasks")["apps"], COLUMNS, output, kind="apps", name="id")


@app.command("show")
@click.argument("id")
@api_option
@output_option
def show_app(api: Api, id: str, output: str) -> None:
    """Show an app and its tasks.

    \b
    Example:
      hedgerow app show my-networking
    """
    found = api.get(_path(id))["app"]
    show_one(found, COLUMNS, output, kind="app", name="id")
    if output in ("table", "wide") and found["tasks"]:
        click.echo()
        for line in table(found["tasks"], TASKS):
            click.echo(line)


@app.command()
@click.argument("id")
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows, until the task ends.")
@click.option("--task", metavar="TASK", help="The log of this task; else of all that run.")
@click.option("--tail", type=click.IntRange(min=0), metavar="LINES", help="Only the last lines.")
@api_option
def logs(api: Api, id: str, follow: bool, task: str | None, tail: int | None) -> None:
    """Print what an app has written. When nothing runs, it is the log of the task that ended last.

    \b
    Examples:
      hedgerow app logs my-networking
      hedgerow app logs -f my-networking
    """
    found = api.get(_path(id))["app"]
    tasks = [task] if task else [each["id"] for each in found["tasks"]]
    if follow and len(tasks) > 1:
        raise BadInput(f"{id} has {len(tasks)} tasks, and one log can be followed", f"--task {tasks[0]}, for example")
    for number, each in enumerate(tasks or [None]):
        if len(tasks) > 1:
            click.echo(f"{chr(10) if number else ''}==> {each} <==")
        for piece in api.stream(f"/v1/apps/{id.strip('/')}/logs", task=each, tail=tail, follow=follow):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


@app.command()
@click.argument("ids", nargs=-1, required=True)
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=WAIT_S, show_default=True, metavar="SECONDS",
              help="How long to wait until the last task has ended; 0: not at all.")  # fmt: skip
@api_option
def rm(api: Api, ids: tuple[str, ...], wait_s: float) -> None:
    """End an app, and take away all of it.

    \b
    Example:
      hedgerow app rm my-networking
    """
    for id in ids:
        api.delete(_path(id))
    gone = {"/" + id.strip("/") for id in ids}
    for _ in _ticks(wait_s):
        left = [task for task in api.get("/v2/tasks")["tasks"] if task["appId"] in gone]
        if not left:
            return
    if wait_s:
        hosts = ", ".join(sorted({task["host"] for task in left}))
        raise HedgerowError(f"{len(left)} tasks on {hosts} have not ended after {wait_s:g} s", "hedgerow agent ls")


def _path(id: str) -> str:
    return f"/v2/apps/{id.strip('/')}"


def _definition(file: Any) -> Any:
    name = Path(str(getattr(file, "name", "stdin"))).name.strip("<>")
    try:
        return json.loads(file.read())
    except json.JSONDecodeError as error:
        raise BadInput(f"{name}:{error.lineno}: no JSON: {error.msg}", "write the app as one JSON object") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} is no text", "write the app as one JSON object") from error


def warnings(header: str) -> list[str]:
    """The texts of a Warning header (RFC 7234, 5.5)."""
    return [re.sub(r"\\(.)", r"\1", text) for text in re.findall(r'299 - "((?:[^"\\]|\\.)*)"', header)]


def _ticks(wait_s: float) -> Iterator[None]:
    end_s = time.monotonic() + wait_s
    while wait_s:
        yield
        if time.monotonic() > end_s:
            return
        time.sleep(POLL_S)


def _wait_until_running(api: Api, id: str, wait_s: float) -> dict[str, Any]:
    """Until all run, or one has ended well. Raises with the reason when one has failed."""
    found: dict[str, Any] = {}
    for _ in _ticks(wait_s):
        found = api.get(_path(id))["app"]
        last = found.get("lastTaskFailure")
        if found["tasksRunning"] >= found["instances"] or (last and last["state"] in OVER):
            return found
        if last:
            told = f"{id} failed on {last['host']}: {last['message']}"
            raise HedgerowError(told, f"it is tried again; hedgerow app logs {id}, hedgerow app rm {id}")
    told = f"{found['tasksRunning']} of {found['instances']} instances of {id} run after {wait_s:g} s"
    raise HedgerowError(told, "hedgerow agent ls shows whether there are agents to run them")
