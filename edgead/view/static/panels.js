// What concerns the whole run: counts per hour, ledger, model, sinks.

import { byCause, byId, clock, count, element, facts, minute, number, percent, setText } from "./dom.js";

const HOUR_COLUMNS = [["Hour", "began"], ["PASS", "passed"], ["FAIL", "failed"], ["UNKNOWN", "unknown"], ["dropped", "dropped"], ["rejected", "share"]];

export function showPanels(state) {
  showHours(state);
  showLedger(state.ledger);
  showModel(state.model);
  showSinks(state.sinks);
  setText(byId("title"), state.model.category || state.model.name);
  setText(byId("version"), `edgead ${state.version}`);
}

function table(node, head, rows) {
  const text = JSON.stringify(rows);
  if (node.dataset.shown === text) return;
  node.dataset.shown = text;
  node.replaceChildren(element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell))))))));
}

function showHours(state) {
  const sums = new Map();
  for (const camera of state.cameras) {
    for (const hour of camera.hours) {
      const sum = sums.get(hour.began) ?? { passed: 0, failed: 0, unknown: 0, dropped: 0 };
      for (const name of Object.keys(sum)) sum[name] += hour[name];
      sums.set(hour.began, sum);
    }
  }
  const rows = [...sums].sort(([a], [b]) => b - a).slice(0, 8).map(([began, sum]) => {
    const decided = sum.passed + sum.failed;
    const hour = clock(new Date(began * 1000)).slice(0, 5);  // in India an hour of UTC begins at half past
    const share = decided ? percent(sum.failed / decided) : "–";
    return [hour, count(sum.passed), count(sum.failed), count(sum.unknown), count(sum.dropped), share];
  });
  table(byId("hours"), HOUR_COLUMNS.map(([name]) => name), rows);
}

function showLedger(ledger) {
  const row = (name, n, causes) => [name, count(n), causes ? byCause(causes) : ""];
  table(byId("ledger"), ["", "frames", "cause"], [
    row("Captured", ledger.captured),
    row("= decided", ledger.inferred, { PASS: ledger.passed, FAIL: ledger.failed, UNKNOWN: ledger.unknown }),
    ...(ledger.unknown ? [row("of these UNKNOWN", ledger.unknown, ledger.unknown_by_cause)] : []),
    row("+ dropped", ledger.dropped, ledger.dropped_by_cause),
    row("+ in flight", ledger.in_flight),
    ...(Object.keys(ledger.reported_by_cause).length ? [["Reports", "", byCause(ledger.reported_by_cause)]] : []),
  ]);
}

function showModel(model) {
  const set = model.threshold === model.own_threshold ? "the bundle's own" : `set for this run; the bundle's own is ${number(model.own_threshold)}`;
  facts(byId("model"), [
    ["Bundle", model.name],
    ["Hash", model.digest.slice(0, 12)],
    ["Method", [model.method, model.preset].filter(Boolean).join(" ")],
    ["Precision", model.precision],
    ["Engine", model.engine],
    ["Made", minute(model.created)],
    ["Threshold", `${number(model.threshold)}, ${set}`],
    ["Promise", model.promise],
  ]);
}

function showSinks(sinks) {
  const node = byId("sinks"), text = JSON.stringify(sinks);
  if (node.dataset.shown === text) return;
  node.dataset.shown = text;
  node.replaceChildren(...sinks.map(sinkNode));
  if (!sinks.length) node.append(element("p", { class: "muted" }, "No sink: results are printed only."));
}

function sinkNode(sink) {
  const figures = ["taken", "waiting", "failed", "dropped"].map((name) =>
    element("div", sink[name] && (name === "failed" || name === "dropped") ? { class: "trouble" } : {},
      element("dt", {}, name), element("dd", {}, count(sink[name]))));
  const error = sink.last_error ? [element("p", { class: "error" }, `✕ ${sink.last_error}`)] : [];
  return element("div", {}, element("h3", {}, sink.sink), element("dl", { class: "facts" }, ...figures), ...error);
}
