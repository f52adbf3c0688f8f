"""`completion`: what a shell needs to complete the commands and options of a program of ours at the Tab key.

The shell asks the program itself what may come next, through an environment variable that click answers
(https://click.palletsprojects.com/en/stable/shell-completion/), so that what is proposed is what exists.
"""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


def completion_command(program: str) -> click.Command:
    """The command for a program.

    Args:
        program: what it is called.
    """

    @click.command("completion")
    @click.argument("shell", type=click.Choice(list(_SHELLS)))
    @click.pass_context
    def completion(context: click.Context, shell: str) -> None:
        """Print the lines that make SHELL complete commands, options and file names at the Tab key.

        In bash (4.4 or newer) and zsh they belong into the start file, after `compinit` in zsh; in fish into a file
        of its own below ~/.config/fish/completions.
        """
        root = context.find_root().command
        asked = _SHELLS[shell](root, {}, program, f"_{program.replace('-', '_').upper()}_COMPLETE")
        # Not the shell's own way: bash's starts a bash to ask for its version.
        click.echo(ShellComplete.source(asked))

    return completion
