// Builds elements. Text that comes from files, topics or ids only ever becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// What the browser keeps for this page. One that blocks cookies refuses any access: then it ends with the page.
export function storage(name) {
  try {
    return window[name];
  } catch {
    const kept = new Map();
    return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
  }
}

// Sets a text only where it changes, so that selections and screen readers are left alone.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function facts(list, rows) {
  const have = [...list.querySelectorAll("dd")];
  if (have.length !== rows.length || rows.some(([name], i) => list.querySelectorAll("dt")[i].textContent !== name)) {
    list.replaceChildren(...rows.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    return;
  }
  rows.forEach(([, value], i) => setText(have[i], value));
}

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(Math.max(2, digits - 2)) : String(Number(value.toPrecision(digits)));
}

// Score and limit: where they differ, so do their texts.
export function apart(one, other) {
  let digits = 4;
  if (Number.isFinite(one) && Number.isFinite(other) && one !== other)
    while (digits < 17 && number(one, digits) === number(other, digits)) digits++;
  return [number(one, digits), number(other, digits)];
}

// Only all is 100 %.
export function percent(share) {
  let digits = 3;
  while (share < 1 && digits < 17 && Number((100 * share).toPrecision(digits)) >= 100) digits++;
  return `${number(100 * share, digits)} %`;
}

export const count = (value) => Math.round(value).toLocaleString("en");

export function ago(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export const clock = (date) => date.toLocaleTimeString("en-GB");

// Of the bundle: in the time of this page's clock, as everything else on it.
export function minute(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : date.toLocaleString("sv-SE", { dateStyle: "short", timeStyle: "short" });
}

export function byCause(counts) {
  return Object.entries(counts).map(([cause, n]) => `${cause} ${count(n)}`).join(", ");
}
