"""The reference page of config.yaml, made from the records by which it is read, so that the two cannot disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import agent, between, schema, walls, yaml
from .settings import Setting

_CONFIG = f"""# config.yaml

The part of DC/OS's config.yaml that is about virtual networks, with DC/OS's keys as they are, and some of ours. Other
keys of a DC/OS config.yaml may stay in the file: they are accepted and not read, also those that begin with
`dcos_overlay_`; one that is nearly ours is warned of. Unknown keys inside our sections are refused.

`hedgerow config check FILE` prints every problem at once, each as `file:line: path: value: what is wrong; the cure`,
and ends with 2. `hedgerow config keys config.yaml` prints this page.

A file may have {yaml.MAX_BYTES >> 20} MiB, {yaml.MAX_NODES:,} values and {yaml.MAX_DEPTH} levels. Keys given twice and
second documents are refused; aliases and merge keys are never followed, and refused in our sections. YAML 1.1 holds, as
in DC/OS: a word that YAML reads as something else (`on`, `010`, `12:30`) must stand in quotes.

The controller imports the file once, into an empty store. Afterwards it only compares the two, and `hedgerow status`
says when they differ. `hedgerow apply FILE` changes a running cluster: `allow`, `isolated`, `rules`, `internal`,
`attach`, `agents`, `hosts` and `host_services` of networks that there are, all in one step. `agents` must still name
every agent that has a block of the network. Every other change is refused, and nothing is changed then.
"""

_BETWEEN = f"""
## What must hold between keys

- Names are unique, and none of: {", ".join(f"`{name}`" for name in sorted(schema.RESERVED_NAMES))}.
- No subnet overlaps another network's, or the VTEPs', of its family. No subnet has host bits set.
- A block is at least as long as its subnet (equal: room for one agent), and at most /{schema.LONGEST_PREFIX},
  or /{schema.LONGEST_PREFIX6} for IPv6. A subnet has room for 2^(prefix - its length) agents. The first address of a
  block is never given out.
- With `subnet6` the MTU is at least {schema.SMALLEST_MTU6}.
- No subnet touches {", ".join(f"{unusable} ({meaning.partition(' (')[0]})" for unusable, meaning in between.UNUSABLE)}.
"""

_WALLS = """
Keys beside each other in `from` or `to` must all hold. Apps and labels are those of Marathon apps, as the controller
assigned them to the agent that reports an instance; what a container says of itself picks no verdict. A container that
is no instance is `any` and nothing else.

Rules and mappings under `allow` say who may begin. Replies come back by themselves, for as long as the opening holds:
when it goes, flows that lean on it are cut. Entries add up, and none takes another one back. A name under `allow` opens
a network with `rules`, too: both ways, everything.

Absent, empty and a key without a value are three things. `rules: []` lets nothing pass inside a network, no `rules` at
all lets everything pass; `agents: []` is no agent, no `agents` at all is every one. `rules:` with nothing behind it is
refused, and so are `allow:`, `agents:` and `host_services:`.
"""


_AGENT = """# agent.yaml

What an agent must be told of its own host: `/etc/hedgerow/agent.yaml`, for `hedgerow agent --config FILE`. Unknown
keys are refused, and every problem is told with its line before anything is touched. `hedgerow config keys agent.yaml`
prints this page.
"""


def agent_page() -> str:
    """Markdown."""
    return _AGENT + _table("Keys", agent.ALL)


def config_page() -> str:
    """Markdown."""
    parts = [
        _CONFIG,
        _table("Top level", schema.TOP),
        _table("Under `dcos_overlay_network`", schema.TUNNELS),
        _table("A network, one entry of `overlays`", schema.OVERLAY),
        _table("A mapping under `allow`", walls.ALLOW_ENTRY),
        _table("A rule, one entry of `rules`", walls.RULE),
        _table("Who: `from` and `to` of a rule", walls.SELECTOR),
        _WALLS,
        _BETWEEN,
        "\n## Decided, not built yet\n\nThese keys of a network are refused, never ignored.\n\n",
        "".join(f"- `{key}`: {meaning}\n" for key, meaning in schema.NOT_YET.items()),
    ]
    return "".join(parts)


def _table(title: str, settings: Sequence[Setting[Any]]) -> str:
    rows = [f"\n## {title}\n\n| key | takes | without it | meaning |\n| --- | --- | --- | --- |\n"]
    for setting in settings:
        rows.append(f"| `{setting.key}` | {setting.takes} | {_default(setting.default)} | {setting.meaning} |\n")
    return "".join(rows)


def _default(value: object) -> str:
    match value:
        case bool():
            return f"`{str(value).lower()}`"
        case int() | str() | Path() if value != "":
            return f"`{value}`"
        case tuple() if value:
            return f"`[{', '.join(map(str, value))}]`"
        case _:
            return ""
