"""Bundle and sinks as Prometheus text. Frames: `edgead.runtime.ledger.Ledger.to_prometheus`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgead.bundle.manifest import Manifest
from edgead.runtime.ledger import label
from edgead.runtime.sink_worker import SinkAccount, SinkWorker


def bundle_to_prometheus(manifest: Manifest, reloads: Mapping[str, int]) -> str:
    """Return which bundle decides, and the numbers of reloads by outcome, as Prometheus text."""
    labels = f"{label('bundle', manifest.name)},{label('digest', manifest.digest)}"
    lines = [
        "# HELP edgead_bundle_info The bundle that decides; the value is 1.",
        "# TYPE edgead_bundle_info gauge",
        f"edgead_bundle_info{{{labels}}} 1",
        "# HELP edgead_bundle_reloads_total Reloads that signal HUP asked for, by outcome.",
        "# TYPE edgead_bundle_reloads_total counter",
        *(f"edgead_bundle_reloads_total{{{label('outcome', name)}}} {count}" for name, count in reloads.items()),
    ]
    return "\n".join(lines) + "\n"


def sinks_to_prometheus(workers: Sequence[SinkWorker]) -> str:
    """Return the accounts of sinks as Prometheus text.

    Counters never decrease: a result that a sink discards after taking it counts as taken and as dropped.
    """
    accounts = [worker.account() for worker in workers]
    results, causes, waiting, details = [], [], [], []
    for worker, account in zip(workers, accounts):
        sink = label("sink", account["sink"])
        fates = {"taken": worker.accepted, "failed": account["failed"], "dropped": account["dropped"]}
        results += [
            f"edgead_sink_results_total{{{sink},{label('fate', fate)}}} {count}" for fate, count in fates.items()
        ]
        causes += [
            f"edgead_sink_dropped_total{{{sink},{label('cause', cause)}}} {count}"
            for cause, count in account["dropped_by_cause"].items()
        ]
        waiting.append(f"edgead_sink_waiting{{{sink}}} {account['waiting']}")
        details += [
            f"edgead_sink_detail{{{sink},{label('name', name)}}} {float(value):g}"
            for name, value in account.items()
            if name not in SinkAccount.__annotations__ and isinstance(value, int | float)
        ]
    lines = [
        "# HELP edgead_sink_results_total Results of a sink by fate.",
        "# TYPE edgead_sink_results_total counter",
        *results,
        "# HELP edgead_sink_dropped_total Dropped results by cause.",
        "# TYPE edgead_sink_dropped_total counter",
        *causes,
        "# HELP edgead_sink_waiting Results that wait for a sink.",
        "# TYPE edgead_sink_waiting gauge",
        *waiting,
        "# HELP edgead_sink_detail Further figures of a sink, see docs/sinks.md; a switch is 0 or 1.",
        "# TYPE edgead_sink_detail gauge",
        *details,
    ]
    return "\n".join(lines) + "\n"
