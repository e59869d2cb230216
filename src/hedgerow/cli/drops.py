"""`hedgerow drops`: what the hedges stopped, by network and reason, or one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from .api import Api, api_option
from .output import VERSION, Column, Record, output_option, show

COLUMNS = (
    Column("AGENT", "agent"),
    Column("NETWORK", "network"),
    Column("REASON", "reason"),
    Column("PACKETS", "packets"),
    Column("BYTES", "bytes"),
)
DEFAULT_SINCE = "10m"


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Packet by packet, as they are dropped, until Ctrl-C.")
@click.option("--from", "source", metavar="WHO", help="Packet by packet: only those that WHO sent.")
@click.option("--to", "destination", metavar="WHO", help="Packet by packet: only those for WHO.")
@click.option("--since", metavar="TIME", help="Packet by packet: as old as this, as 30s or 5m, at most 10m.")
@click.option("--reason", help="Only those dropped for this reason.")
@click.option("--network", help="Only those of this network.")
@click.option("--agent", help="Only those on this agent.")
@api_option
@output_option
def drops(
    api: Api,
    output: str,
    follow: bool,
    source: str | None,
    destination: str | None,
    since: str | None,
    **only: str | None,
) -> None:
    """Packets that were dropped, since each agent's data path was loaded; most first.

    With -f, --from, --to or --since packet by packet, newest last: a sample, at most 100 a second and CPU, of the last
    ten minutes. WHO is an endpoint, an app, an address, a subnet, a network or an agent. -o json prints one object a
    line. docs/reference/drop-reasons.md says what each reason means and what to do about it.

    \b
    Examples:
      hedgerow drops
      hedgerow drops --network dev -o json
      hedgerow drops -f --from web --reason isolated
      hedgerow drops --since 5m --to 10.64.0.0/12

    Exit codes: 0 all agents answered, 3 some did not; those are named on stderr.
    """
    if follow or source or destination or since:
        asked = {"from": source, "to": destination, "since": since or ("0s" if follow else DEFAULT_SINCE), **only}
        for sample in _samples(api, follow=follow, **asked):
            click.echo(_line(sample, output))
        return
    _counters(api, output, **only)


def _counters(api: Api, output: str, *, reason: str | None, network: str | None, agent: str | None) -> None:
    answer = api.get("/v1/drops")
    found = [
        record
        for record in answer["drops"]
        if network in (None, record["network"])
        and agent in (None, record["agent"])
        and reason in (None, record["reason"])
    ]
    found.sort(key=lambda record: (-record["packets"], record["agent"], record["network"], record["reason"]))
    silent = answer.get("silent") or []
    show(found, COLUMNS, output, kind="drops", name="reason", silent=silent)
    if silent:
        click.echo(f"silent: {', '.join(silent)}; what was dropped there is not counted here", err=True)
        raise click.exceptions.Exit(3)


def _samples(api: Api, **asked: object) -> Iterator[Record]:
    rest = b""
    for piece in api.stream("/v1/drops/samples", **asked):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (json.loads(line) for line in lines)


def _line(sample: Record, output: str) -> str:
    match output:
        case "json":
            return json.dumps({"version": VERSION, **sample}, ensure_ascii=False)
        case "yaml":
            import yaml

            return str(yaml.safe_dump([dict(sample)], sort_keys=False, allow_unicode=True)).rstrip()
        case "name":
            return str(sample["reason"])
        case _:
            return _told(sample, wide=output == "wide")


def _told(sample: Record, *, wide: bool) -> str:
    """`14:06:31  web.dev -> db.prod:5432/tcp  isolated  x3  on n1`."""
    clock = time.strftime("%H:%M:%S", time.localtime(sample["time_s"]))
    source = _end(sample["source"], wide=wide)
    port = f":{sample['destination']['port']}" if sample["destination"]["port"] else ""
    flow = f"{source} -> {_end(sample['destination'], wide=wide)}{port}/{sample['protocol']}"
    return f"{clock}  {flow:<56}  {sample['reason']:<16}  x{sample['packets']:<4}  on {sample['agent']}"


def _end(end: dict[str, Any], *, wide: bool) -> str:
    """By name where it has one; `-o wide` has the address, too."""
    if not end["name"]:
        return f"[{end['address']}]" if ":" in end["address"] else str(end["address"])
    name = f"{end['name']}.{end['network']}"
    return f"{name}({end['address']})" if wide else name
