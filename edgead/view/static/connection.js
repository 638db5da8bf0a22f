// Reads the server-sent events with fetch, because EventSource cannot send a token. Says when nothing comes any more.

import { storage } from "./dom.js";

const SILENT_MS = 3000;
const RETRY_MS = 2000;
const tokens = storage("sessionStorage");

export class Connection {
  constructor({ onEvent, onLost, onBack, askToken }) {
    Object.assign(this, { onEvent, onLost, onBack, askToken });
    this.heard = performance.now();
    this.lost = false;
    this.ended = false;
    this.why = "";
    setInterval(() => this.watch(), 500);
  }

  get headers() {
    const token = tokens.getItem("edgead-token");
    return token ? { Authorization: `Bearer ${token}` } : {};
  }

  async run() {
    for (;;) {
      let refused = "";
      try {
        refused = await this.read();
      } catch {
        // The next lines say so.
      }
      this.tellLost(refused);
      await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  }

  async get(path) {
    const answer = await fetch(path, { headers: this.headers }).catch(() => {
      throw new Error("No connection.");
    });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    return answer;
  }

  // Returns why the page refuses to send events; empty where they have ended otherwise.
  async read() {
    this.cancel = new AbortController();
    const answer = await fetch("/api/events", { headers: this.headers, signal: this.cancel.signal });
    if (answer.status === 401) {
      tokens.setItem("edgead-token", await this.askToken());
      return "";
    }
    if (!answer.ok) return (await answer.text()).trim();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return "";
      this.hear();
      const parts = (waiting + value).split("\n\n");
      waiting = parts.pop();
      parts.forEach((part) => this.dispatch(part));
    }
  }

  dispatch(part) {
    const [first, second] = part.split("\n");
    const event = first.replace("event: ", "");
    this.ended = event === "ended";
    if (!this.ended) this.onEvent(event, JSON.parse(second.slice("data: ".length)));
  }

  hear() {
    this.heard = performance.now();
    if (this.lost) this.onBack();
    this.lost = false;
  }

  watch() {
    if (performance.now() - this.heard < SILENT_MS || this.lost) return;
    this.tellLost();
    this.cancel?.abort();
  }

  tellLost(why = "") {
    if (this.lost && why === this.why) return;
    this.lost = true;
    this.why = why;
    const since = new Date(Date.now() - (performance.now() - this.heard));
    this.onLost(since, this.ended, why);
  }
}
