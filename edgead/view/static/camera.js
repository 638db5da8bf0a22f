// One camera: banner, last picture, last reject, strip, scores.

import { drawScores } from "./chart.js";
import { ago, apart, byCause, byId, clock, element, facts, number, setText } from "./dom.js";
import { SHAPES } from "./shapes.js";
import { Stage } from "./stage.js";

const SIGNS = { "real defect": "✕", "false reject": "✓", unsure: "?" };

export const markText = (mark) => (mark ? `${SIGNS[mark]} ${mark}` : "");

// Shows drift: the median of recent good parts beside that of the held-out images.
export function typical(scores, heldOut) {
  const passed = scores.filter(([, verdict]) => verdict === "P").map(([score]) => score).sort((a, b) => a - b);
  if (!passed.length) return "–";
  const middle = passed.length / 2;
  const median = number((passed[Math.ceil(middle) - 1] + passed[Math.floor(middle)]) / 2, 3);
  return heldOut === null ? median : `${median} (held-out images ${number(heldOut, 3)})`;
}

// Tab stops once in a strip: where every part fails, new rejects come faster than a person presses Tab past old ones.
function stepThroughStrip(event) {
  const node = event.target.closest("li");
  const next = { ArrowLeft: node?.previousElementSibling, ArrowRight: node?.nextElementSibling }[event.key];
  if (!next) return;
  event.preventDefault();
  next.firstChild.focus();
}

export class Camera {
  constructor(name, rejects) {
    this.name = name;
    this.rejects = rejects;
    this.node = byId("camera-template").content.cloneNode(true).querySelector(".camera");
    this.node.setAttribute("aria-label", name);
    const find = (selector) => this.node.querySelector(selector);
    this.find = find;
    setText(find(".name"), name);
    this.live = new Stage(find(".live .stage"));
    this.held = new Stage(find(".held .stage"));
    this.held.empty("No reject in this run");
    this.heldReject = null;
    find(".held .stage").addEventListener("click", () => this.heldReject && rejects.open(this.heldReject));
    find(".strip").addEventListener("keydown", stepThroughStrip);
    this.thumbnails = new Map();
    this.strip = []; // sent with its pictures at most once a second, also while every part fails
    this.marks = new Map();
  }

  // `lost`: null while the line is connected; else the word for the banner and the seconds since.
  update(state, lost) {
    const elapsed = lost ? lost.seconds : 0;
    this.showBanner(lost ? {
      kind: "lost", word: lost.word, reason: "", check: "Check the computer and the network.",
      text: `What you see is old. The last verdict was ${state.banner.word}.`,
    } : state.banner);
    this.showDrift(state.drift);
    const [score, limit] = apart(state.score, state.threshold);
    setText(this.find(".score"), score);
    setText(this.find(".limit"), limit);
    setText(this.find(".age"), state.age === null ? "–" : ago(state.age + elapsed));
    setText(this.find(".picture-age"), state.picture_age === null ? "" : `${ago(state.picture_age + elapsed)} ago`);
    this.marks = new Map(state.rejects.map((one) => [one.id, one.mark]));
    setText(this.find(".held-mark"), markText(this.marks.get(this.heldReject?.id)));
    this.showStrip();
    drawScores(this.find(".chart"), state.scores, state.threshold ?? this.rejects.threshold());
    this.showFacts(state);
  }

  showBanner(banner) {
    const node = this.find(".banner");
    if (node.dataset.kind !== banner.kind) {
      node.dataset.kind = banner.kind;
      this.find(".shape path").setAttribute("d", SHAPES[banner.kind]);
    } else if (!this.find(".shape path").getAttribute("d")) {
      this.find(".shape path").setAttribute("d", SHAPES[banner.kind]);
    }
    setText(this.find(".word"), banner.word);
    setText(this.find(".text"), banner.text || banner.reason);
    setText(this.find(".check"), banner.check);
    this.find(".check").title = banner.reason;
    node.dataset.length = banner.word.length < 5 ? 4 : banner.word.length < 8 ? 7 : 9;
  }

  // No verdict changes: the banner stays, and this stands below it until a window of good parts looks as before.
  showDrift(drift) {
    const node = this.find(".drift");
    node.hidden = drift.length === 0;
    setText(node, drift.length
      ? `Good parts look different from before. Check lamp, lens and focus. Send the reference parts. (${drift.join("; ")})`
      : "");
  }

  receive(event, message) {
    if (event === "picture") this.live.show(message.picture, `Last picture of ${this.name}: ${message.verdict}`);
    if (event === "held") this.showHeld(message);
    if (event === "strip") {
      this.strip = message.rejects;
      this.showStrip();
    }
  }

  showStrip() {
    this.find(".no-rejects").hidden = this.strip.length > 0;
    const strip = this.find(".strip");
    const ids = this.strip.map((one) => one.id);
    const focused = strip.contains(document.activeElement);
    for (const [id, node] of this.thumbnails) {
      if (!ids.includes(id)) {
        node.remove();
        this.thumbnails.delete(id);
        this.rejects.forget(id);
      }
    }
    const atStart = strip.scrollLeft < 60;
    this.strip.forEach((reject, place) => {
      const node = this.thumbnails.get(reject.id) ?? this.addThumbnail(reject);
      if (strip.children[place] !== node) strip.insertBefore(node, strip.children[place] ?? null);
      setText(node.querySelector(".mark"), markText(this.marks.get(reject.id)));
    });
    [...strip.children].forEach((node, place) => { node.firstChild.tabIndex = place === 0 ? 0 : -1; });
    if (focused && !strip.contains(document.activeElement)) strip.querySelector("button")?.focus({ preventScroll: true });
    if (atStart) strip.scrollLeft = 0;
  }

  addThumbnail(reject) {
    const image = element("img", { alt: "", width: 88, height: 88, src: `data:image/jpeg;base64,${reject.picture}` });
    const button = element("button", { type: "button", title: `Score ${number(reject.score)}` },
      image, element("span", { class: "time" }, clock(new Date(reject.captured_at))), element("span", { class: "mark" }));
    button.setAttribute("aria-label", `Reject of ${clock(new Date(reject.captured_at))}, score ${number(reject.score)}`);
    button.addEventListener("click", () => this.rejects.open(reject));
    const node = element("li", {}, button);
    this.thumbnails.set(reject.id, node);
    return node;
  }

  // With its picture, which comes at most once a second: the newest reject of the state may be another one.
  showHeld(reject) {
    this.held.show(reject.picture, `Last reject of ${this.name}`);
    setText(this.find(".held-age"), `${clock(new Date(reject.captured_at))}, score ${number(reject.score)}`);
    setText(this.find(".held-mark"), markText(this.marks.get(reject.id)));
    this.heldReject = reject;
  }

  showFacts(state) {
    const { latency, figures } = state;
    facts(this.find(".camera-facts"), [
      ["Rate", `${state.per_second.toFixed(state.per_second < 10 ? 1 : 0)} frames/s`],
      ["Latency p50 / p99", latency ? `${number(latency.p50, 3)} / ${number(latency.p99, 3)} ms` : "–"],
      ["Frame", state.frame_id === null ? "–" : String(state.frame_id)],
      ["PASS / FAIL / UNKNOWN", figures ? `${figures.passed} / ${figures.failed} / ${figures.unknown}` : "–"],
      ...(figures?.unknown ? [["UNKNOWN by cause", byCause(figures.unknown_by_cause)]] : []),
      ["Typical PASS score", typical(state.scores, this.rejects.heldOutMedian())],
      ["Picture checks", state.checked ? "dark, blurred, frozen, stretched" : "off for this source"],
    ]);
  }
}
