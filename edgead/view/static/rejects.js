// Rejects: thumbnails, the large view, marks.

import { markText } from "./camera.js";
import { apart, byId, clock, facts, setText } from "./dom.js";
import { Stage } from "./stage.js";

export class Rejects {
  constructor(connection, changes) {
    Object.assign(this, { connection, changes });
    this.dialog = byId("reject");
    this.stage = new Stage(this.dialog.querySelector(".stage"));
    this.told = this.dialog.querySelector(".told");
    this.pictures = new Map();
    this.state = null;
    byId("newer").addEventListener("click", () => this.step(-1));
    byId("older").addEventListener("click", () => this.step(1));
    for (const button of byId("marks").querySelectorAll("button")) {
      button.addEventListener("click", () => this.mark(button.dataset.mark));
    }
  }

  update(state) {
    this.state = state;
    byId("marks").hidden = !state.may_change;
    if (this.dialog.open) this.describe();
  }

  threshold() {
    return this.state?.model.threshold ?? null;
  }

  heldOutMedian() {
    return this.state?.model.held_out_median ?? null;
  }

  all() {
    return this.state ? this.state.cameras.flatMap((camera) => camera.rejects).sort((a, b) => (a.id < b.id ? 1 : -1)) : [];
  }

  picture(id) {
    if (!this.pictures.has(id)) {
      const loading = this.connection.get(`/api/rejects/${encodeURIComponent(id)}`).then((answer) => answer.json());
      loading.catch(() => this.pictures.delete(id));
      this.pictures.set(id, loading);
    }
    return this.pictures.get(id);
  }

  forget(id) {
    this.pictures.delete(id);
  }

  forgetAll() {
    this.pictures.clear();
    this.dialog.close();
  }

  openNewest() {
    const [newest] = this.all();
    if (newest) this.open(newest);
  }

  open(reject) {
    const { id } = reject;
    this.shown = reject;
    setText(this.told, "");
    this.describe();
    if (!this.dialog.open) this.dialog.showModal();
    this.picture(id).then(
      (picture) => this.shown.id === id && this.stage.show(picture, `Reject of ${this.shown.camera}`),
      (error) => this.stage.empty(error.message));
  }

  describe() {
    const fresh = this.all().find((one) => one.id === this.shown.id) ?? this.shown;
    setText(byId("reject-title"), `Reject of ${clock(new Date(fresh.captured_at))}`);
    facts(byId("reject-facts"), [
      ["Camera", fresh.camera],
      ["Frame", String(fresh.frame_id ?? "–")],
      ["Score / limit", apart(fresh.score, fresh.threshold).join(" / ")],
      ["Bundle", fresh.bundle],
      ["Marked as", markText(fresh.mark) || "not marked"],
    ]);
    for (const button of byId("marks").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", button.dataset.mark === fresh.mark);
    }
  }

  // Ids sort by time; the reject that is shown may have left the page.
  step(by) {
    const all = this.all(), { id } = this.shown;
    const next = by < 0 ? all.findLast((one) => one.id > id) : all.find((one) => one.id < id);
    if (next) this.open(next);
  }

  async mark(mark) {
    const { id, captured_at } = this.shown;
    const problem = await this.changes.make("mark", { id, mark }, `Mark this reject as “${mark}”.`);
    const text = problem ?? `Marked as ${mark}.`;
    // Somebody may have gone on to another reject meanwhile.
    setText(this.told, this.shown.id === id ? text : `Reject of ${clock(new Date(captured_at))}: ${text}`);
  }
}
