// The page: one connection, one camera card for each source, keys, colours.

import { Camera } from "./camera.js";
import { Changes } from "./changes.js";
import { Connection } from "./connection.js";
import { Controls } from "./controls.js";
import { byId, clock, setText, storage } from "./dom.js";
import { showPanels } from "./panels.js";
import { Rejects } from "./rejects.js";
import { SHAPES } from "./shapes.js";
import { listenToToggles, toggle } from "./stage.js";

const THEMES = { auto: "as the system", light: "light", dark: "dark" };
const kept = storage("localStorage");
const cameras = new Map();
let state = null;
let announced = "";
let oldTimer = 0;

const changes = new Changes();
const connection = new Connection({
  onEvent: (event, data) => (event === "state" ? showState(data) : cameras.get(data.camera)?.receive(event, data)),
  onLost: (since, ended, why) => showLost(since, ended, why),
  onBack: () => showLink("ok", "Live", ""),
  askToken: () => changes.askReader(),
});
const rejects = new Rejects(connection, changes);
const controls = new Controls(connection, changes, (problem) => problem && showNote(problem));

function showState(next) {
  if (state?.run !== next.run) forgetCameras();
  state = next;
  if (document.body.dataset.link !== "ok") showLink("ok", "Live", "");
  rejects.update(state);
  controls.update(state);
  showPanels(state);
  for (const one of state.cameras) cameraOf(one.name).update(one, null);
  byId("empty").hidden = state.cameras.length > 0;
  byId("cameras").dataset.count = Math.min(state.cameras.length, 3);
  announce();
}

// Cameras, pictures and rejects of another run are not those of this one.
function forgetCameras() {
  for (const camera of cameras.values()) camera.node.remove();
  cameras.clear();
  rejects.forgetAll();
}

function cameraOf(name) {
  if (!cameras.has(name)) {
    const camera = new Camera(name, rejects);
    cameras.set(name, camera);
    byId("cameras").append(camera.node);
  }
  return cameras.get(name);
}

function showLink(link, text, alert) {
  document.body.dataset.link = link;
  setText(byId("link"), text);
  setText(byId("alert"), alert);
  byId("alert").hidden = !alert;
}

function showLost(since, ended, why) {
  const what = ended ? `The run ended at ${clock(since)}` : `No connection since ${clock(since)}`;
  showLink("lost", ended ? "Run ended" : "No connection", `${what}: what you see is old. ${why}`.trim());
  showOld(since, ended ? "RUN ENDED" : "NO CONNECTION");
  clearInterval(oldTimer);
  oldTimer = setInterval(() => showOld(since, ended ? "RUN ENDED" : "NO CONNECTION"), 1000);
  announce();
}

function showOld(since, word) {
  if (document.body.dataset.link !== "lost") return clearInterval(oldTimer);
  const lost = { word, seconds: (Date.now() - since) / 1000 };
  for (const one of state?.cameras ?? []) cameraOf(one.name).update(one, lost);
}

let noteTimer = 0;
function showNote(text) {
  if (document.body.dataset.link !== "ok") return;
  showLink("ok", "Live", text);
  clearTimeout(noteTimer);
  noteTimer = setTimeout(() => document.body.dataset.link === "ok" && showLink("ok", "Live", ""), 8000);
}

// For screen readers: only when a camera's kind of state changes.
function announce() {
  const lost = document.body.dataset.link === "lost";
  const text = lost || !state ? byId("alert").textContent : state.cameras.map((one) => `${one.name}: ${one.banner.word}`).join(", ");
  if (text === announced) return;
  announced = text;
  setText(byId("announce"), text);
  document.title = `${text} – ${byId("title").textContent}`;
}

function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-label", `Colours: ${THEMES[theme]}`);
  byId("theme").title = `Colours: ${THEMES[theme]}`;
}

function nextTheme() {
  const names = Object.keys(THEMES);
  const theme = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
  kept.setItem("edgead-theme", theme);
  applyTheme(theme);
}

const KEYS = {
  h: () => toggle("heat"),
  o: () => toggle("outline"),
  r: () => rejects.openNewest(),
  t: () => state && controls.openThreshold(),
  c: () => state && controls.openChangeover(),
  p: () => state && controls.pause(),
  "?": () => byId("help").showModal(),
};
const REJECT_KEYS = {
  h: KEYS.h,
  o: KEYS.o,
  arrowleft: () => rejects.step(-1),
  arrowright: () => rejects.step(1),
  1: () => rejects.mark("real defect"),
  2: () => rejects.mark("false reject"),
  3: () => rejects.mark("unsure"),
};

function onKey(event) {
  // A field of a dialog that was just closed may still have the focus.
  const typing = event.target.matches("input, select, textarea") && event.target.offsetParent;
  if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
  const open = document.querySelector("dialog[open]");
  const keys = !open ? KEYS : open.id === "reject" && !byId("sign").open ? REJECT_KEYS : {};
  const act = keys[event.key.toLowerCase()];
  if (act && (open?.id !== "reject" || !"123".includes(event.key) || state.may_change)) {
    event.preventDefault();
    act();
  }
}

listenToToggles();
applyTheme(kept.getItem("edgead-theme") in THEMES ? kept.getItem("edgead-theme") : "auto");
byId("theme").addEventListener("click", nextTheme);
byId("open-help").addEventListener("click", () => byId("help").showModal());
document.addEventListener("keydown", onKey);
for (const node of document.querySelectorAll("svg[data-shape]")) {
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", SHAPES[node.dataset.shape]);
  node.append(path);
}
setInterval(() => setText(byId("clock"), clock(new Date())), 500);
connection.run();
