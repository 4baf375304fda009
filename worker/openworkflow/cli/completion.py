"""`openworkflow completion`: what a shell needs to complete commands and options."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in SHELL.

    bash, in ~/.bashrc: eval "$(openworkflow completion bash)"; zsh likewise in ~/.zshrc; fish:
    openworkflow completion fish > ~/.config/fish/completions/openworkflow.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    root = context.find_root().command
    click.echo(made(root, {}, "openworkflow", "_OPENWORKFLOW_COMPLETE").source())
