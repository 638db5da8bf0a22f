// Pause, threshold, changeover.

import { drawHistogram } from "./chart.js";
import { byId, element, number, setText } from "./dom.js";

export class Controls {
  constructor(connection, changes, tell) {
    Object.assign(this, { connection, changes, tell });
    this.state = null;
    byId("pause").addEventListener("click", () => this.pause());
    byId("open-threshold").addEventListener("click", () => this.openThreshold());
    byId("open-changeover").addEventListener("click", () => this.openChangeover());
    byId("apply-changeover").addEventListener("click", () => this.changeOver());
    byId("apply-threshold").addEventListener("click", () => this.applyThreshold());
    byId("own-threshold").addEventListener("click", () => this.propose(this.state.model.own_threshold));
    byId("slider").addEventListener("input", () => this.propose(Number(byId("slider").value), "slider"));
    byId("slider-value").addEventListener("input", () => this.propose(byId("slider-value").valueAsNumber, "number"));
  }

  update(state) {
    this.state = state;
    byId("pause").hidden = !state.may_change;
    byId("open-threshold").hidden = false;
    byId("open-changeover").hidden = !state.may_change || !state.bundles.length;
    byId("apply-threshold").hidden = !state.may_change;
    setText(byId("pause"), state.paused ? "Resume" : "Pause");
  }

  async pause() {
    if (byId("pause").hidden) return;
    const action = this.state.paused ? "resume" : "pause";
    const text = this.state.paused ? "Inspect parts again." : "While the inspection is paused, every picture of a camera is UNKNOWN.";
    this.tell(await this.changes.make(action, {}, text));
  }

  async openThreshold() {
    const dialog = byId("threshold");
    setText(dialog.querySelector(".told"), "");
    this.proposed = this.state.model.threshold;
    this.of = { digest: this.state.model.digest, recipe: this.state.model.recipe };
    if (!dialog.open) dialog.showModal();
    clearInterval(this.timer);
    this.timer = setInterval(() => dialog.open ? this.loadScores() : clearInterval(this.timer), 2000);
    this.propose(this.proposed); // before the wait: meanwhile somebody may type
    await this.loadScores();
  }

  async loadScores() {
    try {
      this.scores = await (await this.connection.get("/api/scores")).json();
    } catch (error) {
      return this.tellNoCounts(error);
    }
    if (Number.isNaN(this.proposed)) return;
    const { low, high } = this.scores;
    const slider = byId("slider");
    slider.min = low;
    slider.max = high;
    slider.step = (high - low) / 1000;
    slider.value = this.proposed;
    drawHistogram(byId("histogram"), this.scores, this.state.model.threshold, this.proposed);
    await this.askWhatIf();
  }

  // NaN: the field is empty, or holds what is no number here, as "0,5".
  propose(value, from) {
    this.proposed = value;
    clearTimeout(this.asking);
    if (Number.isNaN(value)) return byId("what-if").replaceChildren();
    if (from !== "slider") byId("slider").value = value;
    if (from !== "number") byId("slider-value").value = Number(value.toPrecision(6));
    if (this.scores) drawHistogram(byId("histogram"), this.scores, this.state.model.threshold, value);
    this.asking = setTimeout(() => this.askWhatIf(), 120);
  }

  async askWhatIf() {
    const asked = this.proposed;
    try {
      const effect = await (await this.connection.get(`/api/what-if?threshold=${encodeURIComponent(asked)}`)).json();
      if (asked === this.proposed) this.showWhatIf(effect);
    } catch (error) {
      this.tellNoCounts(error);
    }
  }

  showWhatIf(effect) {
    const parts = (n) => `${n} ${n === 1 ? "part" : "parts"}`;
    const most = effect.at_most ? "at most " : "";
    const lines = [effect.parts
      ? `Of the last ${parts(effect.parts)}: ${most}${effect.would_fail} that passed would fail, ${effect.would_pass} that failed would pass.`
      : "No part has been decided with this bundle yet."];
    if (effect.held_out) {
      const share = Math.ceil(effect.limit * 1000 - 1e-6);
      lines.push(`Of ${effect.held_out} ${effect.images} ${effect.held_out_failing} would fail: with ${effect.confidence * 100} % confidence at most ${share} of 1,000 good parts, if they are like those images.`);
    } else {
      lines.push("The bundle has no held-out scores: the false-reject rate is unknown.");
    }
    byId("what-if").replaceChildren(...lines.map((line, i) => element("p", i ? {} : { class: "strong" }, line)));
  }

  // Not where the answer to a change is told.
  tellNoCounts(error) {
    byId("what-if").replaceChildren(element("p", {}, error.message));
  }

  tellThreshold(text) {
    setText(byId("threshold").querySelector(".told"), text);
  }

  async applyThreshold() {
    if (Number.isNaN(this.proposed)) return this.tellThreshold("The field holds no number. Nothing was changed.");
    const text = `Set the threshold from ${number(this.state.model.threshold)} to ${number(this.proposed, 6)}.`;
    const problem = await this.changes.make("threshold", { threshold: this.proposed, ...this.of }, text);
    this.tellThreshold(problem ?? `The threshold is now ${number(this.proposed, 6)}.`);
  }

  openChangeover() {
    if (byId("open-changeover").hidden) return;
    const dialog = byId("changeover");
    setText(dialog.querySelector(".told"), "");
    byId("bundle").replaceChildren(...this.state.bundles.map((name) => {
      const option = element("option", { value: name }, name === this.state.model.name ? `${name} (decides now)` : name);
      option.selected = name !== this.state.model.name;
      return option;
    }));
    if (!dialog.open) dialog.showModal();
  }

  async changeOver() {
    const told = byId("changeover").querySelector(".told"), bundle = byId("bundle").value;
    setText(told, "Opening and checking …");
    const problem = await this.changes.make("changeover", { bundle }, `Change over from ${this.state.model.name} to ${bundle}.`);
    setText(told, problem ?? `${bundle} decides now.`);
  }
}
