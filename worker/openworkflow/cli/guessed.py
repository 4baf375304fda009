"""Answers a command that there is not by the one that was meant."""

import click

_MEANT = {
    **dict.fromkeys(
        ("beat", "consume", "consumer", "serve", "server", "work", "workers"), "worker"
    ),
    **dict.fromkeys(("call", "enqueue", "execute", "invoke", "start", "submit", "trigger"), "run"),
    **dict.fromkeys(("describe", "get", "inspect", "status"), "runs show"),
    **dict.fromkeys(("find", "ls", "ps", "search", "workflow", "workflows"), "runs list"),
    **dict.fromkeys(("abort", "kill", "revoke", "stop", "terminate"), "runs cancel"),
    **dict.fromkeys(("purge", "clean", "cleanup"), "prune"),
    **dict.fromkeys(("flower", "ui", "web"), "dashboard"),
    **dict.fromkeys(("create-tables", "db", "init-db", "schema", "setup", "upgrade"), "migrate"),
    **dict.fromkeys(("rerun", "restart"), "runs retry"),
    **dict.fromkeys(("emit", "notify", "send"), "signal"),
    **dict.fromkeys(("queue", "queues", "rates"), "limits list"),
    **dict.fromkeys(("check", "health", "ping"), "doctor"),
    "why": "runs explain",
    "new": "init",
}
"""What other programs call our commands."""


def meant(group: click.Group, ctx: click.Context, name: str) -> list[str]:
    """The commands that `name` may stand for; none if nobody knows."""
    found = []
    for known in group.list_commands(ctx):
        below = group.get_command(ctx, known)
        if isinstance(below, click.Group) and below.get_command(ctx, name) is not None:
            found.append(f"{known} {name}")
    found.sort(key=lambda each: not each.startswith("runs "))
    return [_MEANT[name], *found] if name in _MEANT else found
