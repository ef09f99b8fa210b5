"""
What is looked at and what is alarmed on.

Metrics and attributes have OpenTelemetry's names here: ``<drain.sessions.closed drain.close.reason="timeout">`` is a
selector. ``@service`` is a label for the service, ``@worker`` one for the process. `dialects` translates them.
"""

from dataclasses import dataclass

__all__ = ["PANELS", "RULES", "Panel", "Rule"]


@dataclass(frozen=True, slots=True)
class Panel:
    """
    A panel.

    Attributes:
        title: Its title.
        says: What it shows, and what should worry.
        targets: The queries, each with its legend.
        unit: Grafana's name of the unit.
        numbers: Whether it shows the present values in large figures rather than their course.
        words: What to show in place of a value, and the colour.
        has_buckets: Whether it needs the buckets of a histogram, which only Prometheus has as series.
    """

    title: str
    says: str
    targets: tuple[tuple[str, str], ...]
    unit: str = "short"
    numbers: bool = False
    words: tuple[tuple[int, str, str], ...] = ()
    has_buckets: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """
    An alarm.

    Attributes:
        name: Its name.
        query: What returns a series for each service or process for which it fires.
        seconds: For how long it must hold.
        severity: ``critical`` if clients are being cut or are about to be, else ``warning``.
        says: What is wrong.
        remedy: What to do.
        section: The section of docs/runbook.md.
    """

    name: str
    query: str
    seconds: int
    severity: str
    says: str
    remedy: str
    section: str


def _of_worker(metric: str, aggregate: str = "max") -> str:
    return f"{aggregate} by (@service, @worker) ({metric})"


def _quantile(histogram: str, part: float, by: str = "") -> str:
    return f"histogram_quantile({part}, sum by ({by}le) (rate(<{histogram}.bucket>[$__rate_interval])))"


def _recent(metric: str, window: str) -> str:
    """
    Return by how much a counter has grown within *window*.

    ``increase`` does not see the first value of a series, and a drain closes sessions for a reason for the first time.
    """
    now = f"last_over_time({metric}[{window}])"
    before = f"last_over_time({metric}[{window}] offset {window})"
    return f"sum by (@service) (clamp_min({now} - ({before} or 0 * {now}), 0))"


PANELS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel(
            "Processes",
            "How many serve, drain and have drained.",
            (
                ("sum by (@service) (<drain.state> == bool 0)", "{{@service}} serving"),
                ("sum by (@service) (<drain.state> == bool 1)", "{{@service}} draining"),
                ("sum by (@service) (<drain.state> == bool 2)", "{{@service}} drained"),
            ),
            numbers=True,
        ),
        Panel(
            "Would we hear of a deregistration?",
            "Of each trigger, how the task stands that sees least. Anything but watching for five minutes is an alarm.",
            (("min by (@service, drain.trigger) (<drain.watch>)", "{{@service}} {{drain.trigger}}"),),
            numbers=True,
            words=((1, "watching", "green"), (0, "not yet", "orange"), (-1, "blind", "red")),
        ),
        Panel(
            "Silent workers",
            "Of tasks with several workers: those that hang.",
            (('sum by (@service) (<drain.workers drain.worker.state="silent">)', "{{@service}}"),),
            numbers=True,
            words=((0, "none", "green"),),
        ),
        Panel(
            "Open sessions",
            "By kind.",
            (("sum by (@service, network.protocol.name) (<drain.sessions.active>)", "{{network.protocol.name}}"),),
        ),
    ),
    "Drains": (
        Panel(
            "Sessions that remain, against the plan",
            "The sum of all drains. Far above the plan, the balancer will cut some.",
            (
                ("sum by (@service) (<drain.sessions.remaining>)", "{{@service}} remain"),
                ("sum by (@service) (<drain.sessions.planned>)", "{{@service}} planned"),
            ),
        ),
        Panel(
            "Sessions that remain, by process",
            "One line that stays while the others fall is a process that hangs.",
            ((f"{_of_worker('<drain.sessions.remaining>')} > 0", "{{@worker}}"),),
        ),
        Panel(
            "Time left",
            "Until the deadline of each drain; negative after it.",
            ((_of_worker("<drain.time_left>"), "{{@worker}}"),),
            unit="s",
        ),
        Panel(
            "Asked to leave",
            "Per second, by what asked.",
            (("sum by (drain.trigger) (rate(<drain.sessions.shed>[$__rate_interval]))", "{{drain.trigger}}"),),
        ),
        Panel(
            "Ended",
            "Per second, by reason. timeout: the application had to be cancelled.",
            (
                (
                    "sum by (drain.close.reason) (rate(<drain.sessions.closed>[$__rate_interval]))",
                    "{{drain.close.reason}}",
                ),
            ),
        ),
        Panel(
            "Turned away",
            "Per second: late arrivals of a drain, and those who waited too long in a storm.",
            (
                (
                    "sum by (drain.refusal.reason) (rate(<drain.sessions.refused>[$__rate_interval]))",
                    "{{drain.refusal.reason}}",
                ),
            ),
        ),
        Panel(
            "Rotation",
            "1 while a process asks sessions to leave although it goes on serving.",
            ((_of_worker("<drain.rotation>"), "{{@worker}}"),),
        ),
        Panel(
            "How long sessions are open",
            "Median and 95th percentile of those that ended.",
            (
                (_quantile("drain.session.duration", 0.5), "median"),
                (_quantile("drain.session.duration", 0.95), "95 %"),
            ),
            unit="s",
            has_buckets=True,
        ),
    ),
    "Arrivals": (
        Panel(
            "Handshakes",
            "From the first storm on: the limit, those in progress, those that wait.",
            (("sum by (drain.handshakes.state) (<drain.handshakes>)", "{{drain.handshakes.state}}"),),
        ),
    ),
    "Watch": (
        Panel(
            "Polls",
            "Per second, by what was concluded or went wrong.",
            (
                (
                    "sum by (drain.trigger, drain.poll.outcome) (rate(<drain.trigger.polls>[$__rate_interval]))",
                    "{{drain.trigger}} {{drain.poll.outcome}}",
                ),
            ),
        ),
        Panel(
            "How long AWS takes to answer",
            "95th percentile.",
            ((_quantile("drain.trigger.poll.duration", 0.95, "drain.trigger, "), "{{drain.trigger}}"),),
            unit="s",
            has_buckets=True,
        ),
    ),
}
"""The panels of the dashboard, by row."""

FORCED = '<drain.sessions.closed drain.close.reason="timeout">'
CLOSES = '<drain.time_left drain.mode="drain">'
"""Of drains that close something: with ``mode="observe"`` every drain leaves all sessions to the balancer."""
WATCH = "alarm-drainwatch-below-1"

RULES = (
    Rule(
        "DrainWorkerSilent",
        _of_worker('<drain.workers drain.worker.state="silent">') + " > 0",
        30,
        "critical",
        "A worker of this task hangs",
        "Its sessions get nothing now, and would not leave in a drain. In the task, starlette-drain status names the "
        "silent worker, and py-spy dump --pid PID shows where it hangs. If it does not come back, kill -KILL PID: its "
        "clients reconnect, and the other workers go on.",
        "a-worker-hangs",
    ),
    Rule(
        "DrainBehindPlan",
        f"{_of_worker('<drain.sessions.remaining>')} > 1.25 * {_of_worker('<drain.sessions.planned>')} + 5 "
        f"and {_of_worker(CLOSES)} > 0",
        30,
        "critical",
        "A drain is slower than its plan and will not end in time",
        "starlette-drain status says which sessions stay: held, leaving, or all those of a silent worker. Stop the "
        "deployment (aws ecs stop-service-deployment) before it reaches more tasks.",
        "a-drain-does-not-end",
    ),
    Rule(
        "DrainDeadlineMissed",
        f"{_of_worker('<drain.sessions.remaining>')} > 0 and {_of_worker(CLOSES)} < -1",
        0,
        "critical",
        "Sessions are open after the deadline of their drain: the balancer cuts them",
        "These clients cannot be helped. Stop the deployment. The log line Drain … ended has the figures; find the "
        "endpoint that does not end, or give the target group a longer deregistration delay.",
        "drain-ended-with-sessions-still-open-ended-late",
    ),
    Rule(
        "DrainKilled",
        f"{_of_worker('last_over_time(<drain.sessions.remaining>[10m])')} > 0 "
        f"and {_of_worker('last_over_time(<drain.time_left>[10m])')} > 60 unless {_of_worker('<drain.state>')}",
        60,
        "critical",
        "A process vanished in the middle of its drain, with sessions open",
        "See why ECS stopped the task: aws ecs describe-tasks gives stoppedReason and the exit code (137: killed, out "
        "of memory or after stopTimeout). Stop the deployment until it is known.",
        "a-task-vanished-in-its-drain",
    ),
    Rule(
        "DrainSessionsForced",
        f"{_recent(FORCED, '10m')} > 0.01 * {_recent('<drain.sessions.closed>', '1h')}",
        0,
        "warning",
        "More than 1 % of the sessions that ended within the hour had to be cancelled",
        "An endpoint does not end when it is told of the disconnect. The log at DEBUG names its path; a test with the "
        "drain finds it.",
        "drain-ended-with-sessions-still-open-ended-late",
    ),
    Rule(
        "DrainStorm",
        _of_worker('<drain.handshakes drain.handshakes.state="held">') + " > 0",
        60,
        "warning",
        "Connections arrive faster than they can be set up",
        "Look for what sent the clients here: a task that crashed, a balancer, a deployment. Those who wait are let in "
        "at the pace that the process can take; add tasks if they wait for longer than clients do.",
        "the-backend-is-overloaded-by-reconnects",
    ),
    Rule(
        "DrainStormRefuses",
        _recent('<drain.sessions.refused drain.refusal.reason="storm">', "5m") + " > 0",
        0,
        "critical",
        "Connections waited too long in a storm and were refused",
        "Add tasks, and stop the deployment if there is one. The refused come back when Retry-After says.",
        "the-backend-is-overloaded-by-reconnects",
    ),
    Rule(
        "DrainWatchBlind",
        "min by (@service, @worker, drain.trigger) (<drain.watch>) < 1",
        300,
        "warning",
        "This task would not notice its deregistration",
        "Do not deploy before this is fixed. starlette-drain status says why: permission, network, throttling or a "
        "wrong target; starlette-drain doctor names the remedy.",
        WATCH,
    ),
    Rule(
        "DrainWatchStalled",
        "sum by (@service, @worker, drain.trigger) (increase(<drain.trigger.polls>[15m])) == 0 "
        "and max by (@service, @worker, drain.trigger) (<drain.watch>) == 1",
        300,
        "warning",
        "This task says that it watches, and has not asked for a quarter of an hour",
        "Its event loop may be blocked: treat it like a worker that hangs, and do not deploy before it is fixed.",
        "a-worker-hangs",
    ),
    Rule(
        "DrainWatchMissing",
        "(count by (@service) (<drain.state>) unless on (@service) count by (@service) (<drain.watch>)) "
        "or absent(<drain.state>)",
        600,
        "warning",
        "No task of the service watches for its deregistration, or no metrics arrive",
        "Look for the line starlette_drain watches in the log: it says what is off, and why. Without any metrics, look "
        "at the exporter and the collector. Leave this rule out for a service that drains on SIGTERM only.",
        WATCH,
    ),
)
"""The alarms, the most urgent first."""
