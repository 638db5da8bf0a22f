// A picture with its heat map and outline over it. Two switches for the whole page.

import { element, svg } from "./dom.js";

export class Stage {
  constructor(node) {
    this.node = node;
    this.image = element("img", { alt: "" });
    this.heat = element("img", { alt: "", class: "heat" });
    this.path = svg("path", { "vector-effect": "non-scaling-stroke" });
    this.halo = svg("path", { "vector-effect": "non-scaling-stroke", class: "halo" });
    this.outline = svg("svg", { class: "outline", viewBox: "0 0 1000 1000", preserveAspectRatio: "none" }, this.halo, this.path);
    this.box = element("div", { class: "box" }, this.image, this.heat, this.outline);
    this.none = element("p", { class: "none" }, "No picture yet");
    node.append(this.none);
  }

  show(picture, label) {
    this.image.src = `data:image/jpeg;base64,${picture.jpeg}`;
    this.image.alt = label;
    this.image.width = picture.width;
    this.image.height = picture.height;
    this.box.style.setProperty("--ratio", picture.width / picture.height);
    this.heat.hidden = !picture.heat;
    if (picture.heat) this.heat.src = `data:image/png;base64,${picture.heat}`;
    this.path.setAttribute("d", picture.outline);
    this.halo.setAttribute("d", picture.outline);
    if (!this.box.isConnected) this.node.replaceChildren(this.box);
  }

  empty(text) {
    this.none.textContent = text;
    if (!this.none.isConnected) this.node.replaceChildren(this.none);
  }
}

export function toggle(layer) {
  const on = document.body.dataset[layer] !== "on";
  document.body.dataset[layer] = on ? "on" : "off";
  for (const button of document.querySelectorAll(`.${layer}-toggle`)) button.setAttribute("aria-pressed", on);
}

export function listenToToggles() {
  document.body.dataset.heat = "off";
  document.body.dataset.outline = "on";
  document.addEventListener("click", (event) => {
    for (const layer of ["heat", "outline"]) {
      if (event.target.closest?.(`.${layer}-toggle`)) toggle(layer);
    }
  });
}
