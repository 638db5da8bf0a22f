// Charts as SVG: scores with the threshold line, counts per hour, histogram of scores.

import { element, number, svg } from "./dom.js";

const MARKS = { P: "M-2.4 0a2.4 2.4 0 1 0 4.8 0a2.4 2.4 0 1 0-4.8 0Z", F: "M-5-3-3-5 0-2 3-5 5-3 2 0 5 3 3 5 0 2-3 5-5 3-2 0Z", U: "M0-5 5 4H-5Z" };
const NAMES = { P: "pass", F: "fail", U: "unknown" };

export function drawScores(node, scores, threshold) {
  const width = Math.max(240, node.clientWidth), height = 150, left = 6, right = 6, top = 12, bottom = 12;
  if (!scores.length) {
    node.replaceChildren(element("p", { class: "muted" }, "No scores yet."));
    return;
  }
  const values = scores.map(([score]) => score).concat(threshold ?? []);
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const x = (i) => left + (i + 200 - scores.length) * (width - left - right) / 199;
  const y = (value) => height - bottom - (value - low) / span * (height - top - bottom);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": describe(scores, threshold) });
  if (threshold !== null) {
    const at = y(threshold);
    chart.append(svg("line", { class: "limit-line", x1: 0, x2: width, y1: at, y2: at }));
    const below = at < 26;
    chart.append(svg("text", { class: "limit-text", x: left, y: below ? at + 14 : at - 6 }, `limit ${number(threshold)}`));
  }
  scores.forEach(([score, verdict], i) => chart.append(
    svg("path", { class: `p-${NAMES[verdict]}`, d: MARKS[verdict], transform: `translate(${x(i).toFixed(1)} ${y(score).toFixed(1)})` })));
  node.replaceChildren(chart);
}

function describe(scores, threshold) {
  const failed = scores.filter(([, verdict]) => verdict === "F").length;
  return `${scores.length} scores, ${failed} failed, newest ${number(scores.at(-1)[0])}, limit ${number(threshold)}`;
}

export function drawHistogram(node, data, threshold, proposed) {
  const width = Math.max(240, node.clientWidth), height = 190, bottom = 20, bins = data.held_out.length, step = width / bins;
  const most = Math.max(1, ...data.held_out, ...data.passed.map((n, i) => n + data.failed[i]));
  const y = (n) => (height - bottom) * (1 - Math.sqrt(n / most));
  const x = (value) => (value - data.low) / (data.high - data.low) * width;
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Histogram of scores" });
  const bar = (i, from, to, kind) => from !== to && chart.append(
    svg("rect", { class: kind, x: i * step + 1, width: step - 2, y: y(to), height: y(from) - y(to) }));
  for (let i = 0; i < bins; i++) {
    bar(i, 0, data.passed[i], "h-pass");
    bar(i, data.passed[i], data.passed[i] + data.failed[i], "h-fail");
    bar(i, 0, data.held_out[i], "h-held");
  }
  const line = (value, kind, text) => {
    const at = x(value);
    chart.append(svg("line", { class: kind, x1: at, x2: at, y1: 0, y2: height - bottom }));
    const end = at > width * 0.75;
    chart.append(svg("text", { class: "limit-text", x: at + (end ? -6 : 6), y: kind === "limit-line" ? 12 : 28, "text-anchor": end ? "end" : "start" }, text));
  };
  line(threshold, "limit-line", "now");
  if (proposed !== threshold) line(proposed, "proposed-line", "proposed");
  chart.append(svg("text", { class: "axis", x: 0, y: height - 4 }, number(data.low)));
  chart.append(svg("text", { class: "axis", x: width, y: height - 4, "text-anchor": "end" }, number(data.high)));
  node.replaceChildren(chart);
}
