// Changes: ask for the token, send, and say what came of it. The token is kept for 5 minutes in this page only.

import { byId, setText } from "./dom.js";

const KEEP_MS = 5 * 60 * 1000;

export class Changes {
  constructor() {
    this.known = null;
    this.dialog = byId("sign");
    byId("sign-cancel").addEventListener("click", () => this.dialog.close());
    byId("sign-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.answer?.({ who: byId("who").value, token: byId("token").value });
      this.answer = null;
      this.dialog.close();
    });
    this.dialog.addEventListener("close", () => {
      byId("token").value = "";
      this.answer?.(null);
      this.answer = null;
    });
  }

  ask(title, text, isChange) {
    setText(byId("sign-title"), title);
    setText(byId("sign-text"), text);
    for (const node of this.dialog.querySelectorAll(".sign-change")) node.hidden = !isChange;
    this.dialog.showModal();
    byId(isChange && !byId("who").value ? "who" : "token").focus();
    return new Promise((answer) => { this.answer = answer; });
  }

  async askReader() {
    for (;;) {
      const given = await this.ask("This page needs the token", "It is set with --view-token on the computer that runs edgead.", false);
      if (given) return given.token;
    }
  }

  // Returns null if it was made, else why not.
  async make(action, values, text) {
    const old = this.known && Date.now() < this.known.until ? this.known : null;
    const given = old ?? await this.ask("Confirm", text, true);
    if (!given) return "Nothing was changed.";
    try {
      const answer = await fetch(`/api/changes/${action}`, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Edgead": "change", Authorization: `Bearer ${given.token}` },
        body: JSON.stringify({ ...values, who: given.who }),
      });
      if (answer.ok || answer.status === 409) this.known = { ...given, until: Date.now() + KEEP_MS };
      if (answer.status === 401) this.known = null;
      return answer.ok ? null : (await answer.text()).trim();
    } catch {
      return "No connection. It is not known whether the change was made.";
    }
  }
}
