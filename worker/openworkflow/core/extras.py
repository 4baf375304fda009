"""Extras of the package: what is said where one is not installed."""

from openworkflow.core.errors import ConfigurationError


def extra_missing(what: str, extra: str, error: ImportError) -> ConfigurationError:
    """The error of `what`, whose module the extra brings: which one is missing, what to install."""
    return ConfigurationError(
        f"{what} needs its extra ({error.name} is missing): "
        f"pip install 'openworkflow-fleet[{extra}]'"
    )
