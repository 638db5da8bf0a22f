"""The report as one self-contained HTML page: plot, tables, conditions and overlays of the worst misses."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence

from edgead.benchmark.accuracy import Miss
from edgead.benchmark.report import METRICS, Report, Row
from edgead.benchmark.tables import (
    DASH,
    FOUND_AT,
    at_allowed,
    auroc,
    kind_lines,
    operating_notes,
    own_threshold,
    percent,
    times,
)
from edgead.errors import require
from edgead.images import Frame, cv2
from edgead.text import valid

PICTURE_SIDE = 220
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1280px; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; text-align: right; border-bottom: 1px solid #d8dee4; white-space: nowrap; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
th { font-weight: 600; background: #f6f8fa; } tr.mean td { font-weight: 600; }
svg { max-width: 100%; height: auto; } .misses { display: flex; flex-wrap: wrap; gap: .8rem; max-width: 940px; }
figure { margin: 0; width: 220px; font-size: .82rem; } figure img { width: 100%; border-radius: 4px; display: block; }
pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; font-size: .82rem; } .note { color: #57606a; }
"""


def render(report: Report, misses: Sequence[tuple[str, Sequence[Miss]]]) -> str:
    """Render a report and its worst misses, grouped under titles, as a page."""
    machine, conditions = report.machine, report.conditions
    where = machine.accelerator or f"{machine.cpu}, {machine.usable_cores} cores"
    stored = report.to_dict()
    conditions_text = json.dumps(
        {name: stored[name] for name in ("command", "machine", "versions", "conditions")}, indent=2, ensure_ascii=False
    )
    pictures = "".join(_misses(title, items) for title, items in misses)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>edgead benchmark</title><style>{STYLE}</style></head><body>
<h1>edgead benchmark</h1>
<p>{html.escape(report.created)} on {html.escape(where)}. Latency is measured for the whole <code>inspect</code>
call (resize, infer, post-process), one frame at a time; {conditions.rounds} calls per bundle, interleaved.</p>
<h2>Latency against AUROC</h2>
{_plot(report.rows)}
<h2>Accuracy</h2>
<p class="note">Percent. Pixel metrics at {conditions.pixel_size}×{conditions.pixel_size}. The F1-max columns choose
their threshold with the test labels, as papers do. “Defects found” and “good rejected” are results of the bundle's own
threshold, with 95 % Clopper–Pearson intervals; “promised” is what it promises: false rejects on average, and at most
with 95 % confidence.</p>
{_accuracy_table(report)}
{_failed(report)}{_notes(report)}
{_kinds(report)}
<h2>Latency</h2>
<p class="note">Milliseconds. “Engine alone” is the bare engine on the same frame, already resized.
The mask at the frame’s resolution is computed on demand and is not included in the other figures.</p>
{_latency_table(report.rows)}
<h2>Worst misses</h2>
<p class="note">Defective images with the lowest scores and good images with the highest scores, with map and mask.</p>
{pictures}
<h2>Conditions</h2>
<pre>{html.escape(conditions_text)}</pre>
</body></html>
"""


def _notes(report: Report) -> str:
    notes = [(row.bundle, row.protocol) for row in report.table if row.protocol]
    notes += [
        (f"unstable: {row.bundle} on {row.engine}", row.latency.unstable) for row in report.rows if row.latency.unstable
    ]
    notes += [(f"Warning: {row.bundle}", row.decisions.warning) for row in report.rows if row.decisions.warning]
    lines = [*operating_notes(report.rows), *(f"{bundle}: {text}" for bundle, text in notes)]
    return "".join(f'<p class="note">{html.escape(line)}</p>' for line in lines)


def _plot(rows: Sequence[Row]) -> str:
    figure = require("matplotlib.figure", "benchmark").Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        latency = row.latency.latency_ms
        x, y = latency.p50, 100 * row.metrics.image_auroc
        axes.errorbar(x, y, xerr=[[0.0], [latency.p99 - x]], fmt="o", markersize=8, capsize=3)
        name = valid(f"{row.bundle} ({row.category})")
        axes.annotate(name, (x, y), xytext=(8, 6), textcoords="offset points", parse_math=False)
    axes.set(xlabel="latency, ms (p50, bar to p99; log scale)", ylabel="image AUROC, %", xscale="log")
    axes.margins(x=0.5)
    lowest = min(100 * row.metrics.image_auroc for row in rows)
    axes.set_ylim(lowest - 0.25 * max(100 - lowest, 4), 100.5)
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(require("matplotlib.ticker", "benchmark").ScalarFormatter())
    axes.grid(alpha=0.3, which="both")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], means: int = 0) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr{' class=mean' if index >= len(lines) - means else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in line)
        + "</tr>"
        for index, line in enumerate(lines)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _accuracy_table(report: Report) -> str:
    lines = []
    for row in report.table:
        rejected, found = own_threshold(row)
        promise = row.decisions.promise if isinstance(row, Row) else None
        promised = f"{percent(promise.average)}, at most {percent(promise.limit)}" if promise else DASH
        others = map(percent, row.metrics.values()[1:])
        lines.append(
            [row.bundle, row.category, row.engine, found, rejected, *at_allowed(row), auroc(row), promised, *others]
        )
    header = ["bundle", "category", "engine", "defects found", "good rejected", *FOUND_AT, "image AUROC", "promised"]
    return _table([*header, *[*METRICS.values()][1:]], lines, means=len(report.averages))


def _kinds(report: Report) -> str:
    tables = []
    for row in report.rows:
        if row.kinds and len(row.kinds) > 1:
            header, *lines = kind_lines(row)
            title = html.escape(f"{row.bundle} on {row.engine}: defects found, percent")
            tables.append(f"<h3>{title}</h3>{_table(header, lines)}")
    return f"<h2>Kinds of defects</h2>{''.join(tables)}" if tables else ""


def _failed(report: Report) -> str:
    lines = [(f"{each.bundle} on {each.engine}", f"failed: {each.reason}") for each in report.failed or ()]
    return "".join(f'<p class="note">{html.escape(": ".join(line))}</p>' for line in lines)


def _latency_table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        latency, stages, floor, start = row.latency, row.latency.stages_ms, row.floor, row.start
        inner = (stages.fit.p50, stages.infer.p50, stages.post.p50, latency.engine_ms.p50)
        lines.append(
            [
                row.bundle,
                row.engine,
                *times(row),
                *(f"{time:.2f}" for time in inner),
                f"{latency.inspect_over_engine:.3f}",
                f"{latency.mask_ms.p50:.2f}",
                f"{floor.floor_ms:.2f}" if floor else DASH,
                DASH if not floor or latency.unstable else f"{floor.ratio:.2f}",
                f"{start.first_result_seconds:.1f}" if start else DASH,
                f"{start.peak_rss_mib:.0f}" if start else DASH,
                DASH if row.bundle_bytes is None else f"{row.bundle_bytes / 1e6:.1f}",
            ]
        )
    header = ["bundle", "engine", "p50", "p90", "p99", "p99.9", "fit p50", "infer p50", "post p50", "engine alone p50"]
    header += ["ratio", "mask p50", "floor", "p50 / floor", "first result, s", "memory, MiB", "size, MB"]
    return _table(header, lines)


def _misses(title: str, misses: Sequence[Miss]) -> str:
    figures = "".join(
        f'<figure><img alt="" src="data:image/jpeg;base64,{_thumbnail(miss.picture)}">'
        f"<figcaption>{html.escape(miss.sample.kind)}, score {miss.score:.4g}<br>{html.escape(miss.sample.path.name)}"
        "</figcaption></figure>"
        for miss in misses
    )
    return f'<h3>{html.escape(title)}</h3><div class="misses">{figures}</div>'


def _thumbnail(picture: Frame) -> str:
    scale = 2 * PICTURE_SIDE / max(picture.shape[:2])
    small = cv2().resize(picture, None, fx=scale, fy=scale, interpolation=cv2().INTER_AREA)
    _, data = cv2().imencode(".jpg", small, [cv2().IMWRITE_JPEG_QUALITY, 85])
    return base64.b64encode(data).decode()
