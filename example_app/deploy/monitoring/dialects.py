"""How Prometheus and CloudWatch call the metrics and attributes of `queries`."""

import re
from dataclasses import dataclass

__all__ = ["CLOUDWATCH", "PROMETHEUS", "Dialect"]

SELECTOR = re.compile(r"<(drain\.[a-z_.]+)((?: [^>]+)?)>")
NAME = re.compile(r"@service|@worker|\b(?:drain|network)\.[a-z_.]+")
MATCHER = re.compile(r'([a-z_.@]+)(=~?)("[^"]*")')

COUNTERS = ("drain.sessions.shed", "drain.sessions.closed", "drain.sessions.refused", "drain.trigger.polls")
IN_SECONDS = ("drain.time_left", "drain.session.duration", "drain.trigger.poll.duration")


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    One way to call things.

    Attributes:
        service: The label for the service.
        worker: The label for the process.
        is_utf8: Whether the names are OpenTelemetry's, in quotes (Prometheus 3, CloudWatch), or those of the exporter.
    """

    service: str
    worker: str
    is_utf8: bool

    def query(self, source: str, *, only: str | None = None) -> str:
        """Return *source* in PromQL; *only* is a pattern for the service, which every selector then has."""
        parts, end = [], 0
        for selector in SELECTOR.finditer(source):
            parts += [self._named(source[end : selector.start()]), self._selector(selector[1], selector[2], only)]
            end = selector.end()
        return "".join((*parts, self._named(source[end:])))

    def legend(self, source: str) -> str:
        """Return a legend, in which the labels are not quoted."""
        return NAME.sub(lambda name: self._label(name[0]), source)

    def metric(self, name: str) -> str:
        """Return the name of a metric, or of the buckets of one."""
        if self.is_utf8:
            return name
        base = name.removesuffix(".bucket")
        endings = "_total" * (base in COUNTERS) + "_seconds" * (base in IN_SECONDS) + "_bucket" * (base != name)
        return base.replace(".", "_") + endings

    def _selector(self, name: str, matchers: str, only: str | None) -> str:
        found = [(self._label(each[1]), each[2] + each[3]) for each in MATCHER.finditer(matchers)]
        if only is not None:
            found.append((self._label("@service"), f'=~"{only}"'))
        inside = [self._quoted(label) + condition for label, condition in found]
        if self.is_utf8:
            return "{" + ", ".join((f'"{self.metric(name)}"', *inside)) + "}"
        return self.metric(name) + ("{" + ", ".join(inside) + "}" if inside else "")

    def _named(self, source: str) -> str:
        return NAME.sub(lambda name: self._quoted(self._label(name[0])), source)

    def _label(self, name: str) -> str:
        label = {"@service": self.service, "@worker": self.worker}.get(name)
        return label or (name if self.is_utf8 else name.replace(".", "_"))

    def _quoted(self, label: str) -> str:
        return f'"{label}"' if self.is_utf8 else label


PROMETHEUS = Dialect("job", "instance", is_utf8=False)
"""Prometheus, and Amazon Managed Service for Prometheus behind a collector."""

CLOUDWATCH = Dialect("@resource.service.name", "@resource.service.instance.id", is_utf8=True)
"""What comes to CloudWatch by its OTLP endpoint."""
