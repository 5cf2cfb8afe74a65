"""`mizzen`: the operator's command. Each subcommand is a module that is imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final

import click

# Subcommand -> (module below controlplane.cli, what `mizzen --help` says of it); the module's `command` is the click command.
COMMANDS: Final = {
    "demo": ("demo", "Start a whole mesh on this machine, with a small shop in it, and watch it."),
    "run": ("run", "Run a service with its sidecar beside it."),
    "bootstrap": ("bootstrap", "Print the bootstrap file of a service's sidecar."),
    "join": ("join", "Let this machine in, by a join token."),
    "apply": ("apply", "Create or change resources from files."),
    "delete": ("delete", "Delete the resources that files describe."),
    "validate": ("validate", "Check resource files, without a control plane."),
    "analyze": ("analyze", "Look for what does not fit together."),
    "history": ("history", "Who changed a resource, when, and what."),
    "explain": ("explain", "Tell what would become of a request between two services, and why."),
    "proxy-status": ("proxy_status", "Which proxies are connected, and what they have acknowledged."),
    "backup": ("backup", "Copy the store of a control plane, while it runs."),
    "certs": ("certs", "Which identities have certificates, and until when; revoke them."),
    "ca": ("ca", "Rotate the root of the mesh, and see how far that is."),
    "token": ("token", "Make tokens for sidecars and people."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        command: click.Command = import_module(f"controlplane.cli.{found[0]}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table: help does not import what it lists."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mizzen", prog_name="mizzen")
def command() -> None:
    """Mizzen: a service mesh that installs with pip."""


def main(arguments: list[str] | None = None) -> Any:
    """The entry point of the `mizzen` script."""
    return command.main(arguments, prog_name="mizzen")


if __name__ == "__main__":
    sys.exit(main())
