"""--codec: the codecs of stored values that a command reads and writes with."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from openworkflow.backend.backend import BackendPostgres
from openworkflow.cli.target import load_module
from openworkflow.client import OpenWorkflow
from openworkflow.codecs.payloads import checked_codecs
from openworkflow.codecs.protocol import PayloadCodec
from openworkflow.core.errors import ConfigurationError
from openworkflow.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

_META = "openworkflow.codec"


def codec_option(command: F) -> F:
    """--codec; it wins over the environment."""

    def remember(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        ctx.meta[_META] = value

    option: Callable[[F], F] = click.option(
        "--codec",
        metavar="MODULE:NAME",
        expose_value=False,
        callback=remember,
        help="Codecs of stored values. [default: OPENWORKFLOW_CODEC]",
    )
    return option(command)


def chosen_codecs() -> tuple[PayloadCodec, ...]:
    """The codecs of the command, or of the environment. Raises ConfigurationError."""
    text = _asked() or Settings.from_env().codec
    return () if text is None else load_codecs(text)


def codec_arguments() -> list[str]:
    """The option as it was given, for a process that the command starts."""
    text = _asked()
    return [] if text is None else ["--codec", text]


def client_of(backend: BackendPostgres) -> OpenWorkflow:
    """A client with the codecs of the command."""
    return OpenWorkflow(backend, codec=chosen_codecs())


def load_codecs(target: str) -> tuple[PayloadCodec, ...]:
    """What `module:name` is: a codec, a list of them, or a function that makes either.

    Raises ConfigurationError, which does not show what the function raised: that may be a key.
    """
    name, colon, attribute = target.partition(":")
    if not colon or not attribute:
        raise ConfigurationError(
            f"{target!r} names no codec; give module:name, such as shop.codecs:codec"
        )
    value: Any = load_module(name)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ConfigurationError(f"{name} has no {attribute!r}, which is to be its codec")
        value = getattr(value, part)
    if callable(value) and not hasattr(value, "decode"):
        try:
            value = value()
        except ConfigurationError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"{target} could not be called to make a codec: {type(error).__name__}; is the "
                "environment of this process that of the workers?"
            ) from None
    return checked_codecs(value)


def _asked() -> str | None:
    ctx = click.get_current_context(silent=True)
    asked: str | None = None if ctx is None else ctx.meta.get(_META)
    return asked
