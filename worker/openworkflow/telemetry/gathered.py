"""The metrics of several processes, told as those of one."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

LABEL = "process"


class Gathered(Collector):
    """What each process tells at a scrape, every sample with the name of its process.

    `ask` gives the text of each, by name; one that did not answer is left out.
    """

    def __init__(self, ask: Callable[[], Mapping[str, str]]) -> None:
        self._ask = ask

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        families: dict[str, Metric] = {}
        for process, text in self._ask().items():
            for told in text_string_to_metric_families(text):
                family = families.setdefault(
                    told.name, Metric(told.name, told.documentation, told.type)
                )
                family.samples += [
                    sample._replace(labels={**sample.labels, LABEL: process})
                    for sample in told.samples
                ]
        return families.values()
