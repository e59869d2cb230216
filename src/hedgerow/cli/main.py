"""The command line: a table of verbs, each in a module of its own that is imported when it is called.

`hedgerow --help` and shell completion read this table only; a test guards that. Whatever a verb raises as a
HedgerowError ends here as two lines on stderr, what is wrong and what to do, and as the exit code of its kind.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module

import click

from hedgerow.errors import HedgerowError

VERSION = "0.1.0"
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Verb:
    """`where` is module:name of the click command."""

    where: str
    help: str


VERBS = {
    "status": Verb("hedgerow.cli.status:status", "Is everything fine? What is not, and what to do about it."),
    "network": Verb("hedgerow.cli.network:network", "The networks: ls, show."),
    "agent": Verb("hedgerow.cli.agent_verbs:agent", "The agents: ls, show. With --config: be one."),
    "endpoint": Verb("hedgerow.cli.endpoint:endpoint", "Who is attached where: ls, show."),
    "app": Verb("hedgerow.cli.app:app", "Apps, in Marathon's form: run, ls, show, logs, rm."),
    "apply": Verb("hedgerow.cli.apply:apply", "Change the running cluster to what a config.yaml says."),
    "can": Verb("hedgerow.cli.can:can", "May one container talk to another, and which line says so?"),
    "drops": Verb("hedgerow.cli.drops:drops", "What was refused: packets by network and reason."),
    "why": Verb("hedgerow.cli.why:why", "What stops A from reaching B: live, place by place, with the cause."),
    "config": Verb("hedgerow.cli.config:config", "config.yaml: check, keys."),
    "lab": Verb("hedgerow.cli.lab:lab", "A cluster on this machine: up, down, status, exec."),
    "controller": Verb("hedgerow.cli.controller:controller", "Be the controller."),
}

OTHER_WORDS = {f"{noun}s": noun for noun in ("network", "agent", "endpoint", "app")}
"""Plural and singular are both understood."""


class Verbs(click.Group):
    """The group of the table: knows every verb, imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(OTHER_WORDS.get(cmd_name, cmd_name))
        if verb is None:
            return None
        module, _, name = verb.where.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="hedgerow", message="%(prog)s %(version)s")
def hedgerow() -> None:
    """Virtual networks for containers: an address for each, walls by default, across hosts and engines.

    \b
    Examples:
      hedgerow config check examples/lab.yaml
      hedgerow network ls
      hedgerow agent show n1 -o json

    Exit codes: 0 fine, 1 failed, 2 wrong use or bad file, 3 ran fine and found trouble, 4 not reachable, 5 refused.
    """


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line; what the process ends with."""
    try:
        code = hedgerow.main(args=arguments, prog_name="hedgerow", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except HedgerowError as error:
        complain(error)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED


def complain(error: HedgerowError) -> None:
    click.echo(f"hedgerow: {error.message}", err=True)
    if error.cure:
        click.echo(f"  {error.cure}", err=True)


if __name__ == "__main__":
    sys.exit(main())
