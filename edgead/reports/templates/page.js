"use strict";
(() => {
  for (const animation of document.querySelectorAll(".animation")) {
    const moments = animation.querySelector(".moments"), slider = moments.querySelector("input");
    const button = moments.querySelector("button"), output = moments.querySelector("output");
    const texts = [...moments.querySelector("template").content.children].map((each) => each.textContent);
    let timer = 0;
    const show = (number) => {
      slider.value = number;
      output.textContent = texts[number];
      for (const figure of animation.querySelectorAll("figure"))
        [...figure.querySelectorAll("img")].forEach((image, index) => { image.hidden = index !== number; });
    };
    const stop = () => { clearInterval(timer); timer = 0; button.textContent = "Play"; };
    slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
    button.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(slider.value) === texts.length - 1) show(0);
      button.textContent = "Stop";
      timer = setInterval(() => {
        const next = Number(slider.value) + 1;
        if (next < texts.length) show(next);
        if (next >= texts.length - 1) stop();
      }, 700);
    });
    moments.hidden = false;
  }

  const plots = [...document.querySelectorAll("svg.pareto")], details = document.querySelector(".details");
  if (!plots.length) return;
  const rows = new Map([...document.querySelectorAll("tr[data-number]")].map((row) => [row.dataset.number, row]));
  const form = document.querySelector("form.filters");
  const texts = new Map([...document.querySelectorAll("template[data-number]")].map((each) => [each.dataset.number, each]));

  const choose = (number) => {
    details.replaceChildren(texts.get(number).content.cloneNode(true));
    for (const mark of document.querySelectorAll(".mark"))
      mark.classList.toggle("chosen", mark.dataset.number === number);
  };

  // The same rule as edgead.reports.points.front: sorted by latency, each better than all before.
  const drawFront = (plot) => {
    const shown = [...plot.querySelectorAll(".mark")]
      .filter((mark) => !mark.hasAttribute("hidden") && mark.classList.contains("counts"))
      .map((mark) => [Number(mark.dataset.x), Number(mark.dataset.y)])
      .sort((one, two) => one[0] - two[0] || one[1] - two[1]);
    const steps = [];
    for (const [x, y] of shown) {
      const last = steps.at(-1);
      if (last && y >= last[1]) continue;
      if (last) steps.push([x, last[1]]);
      steps.push([x, y]);
    }
    if (steps.length) steps.push([Number(plot.dataset.right), steps.at(-1)[1]]);
    plot.querySelector(".front").setAttribute("points", steps.map((each) => each.join(",")).join(" "));
  };

  const filter = () => {
    const wanted = [...form.querySelectorAll("select")].filter((each) => each.value !== "").map((each) => [each.dataset.name, each.value]);
    const fits = (point) => wanted.every(([name, value]) => point.dataset[name] === value || point.dataset[name] === "*");
    for (const [number, point] of texts) {
      const hidden = !fits(point);
      if (rows.has(number)) rows.get(number).hidden = hidden;
      for (const mark of document.querySelectorAll(`.mark[data-number="${number}"]`)) {
        mark.toggleAttribute("hidden", hidden);
        mark.style.display = hidden ? "none" : "";
      }
    }
    plots.forEach(drawFront);
  };

  for (const mark of document.querySelectorAll(".mark")) {
    for (const event of ["pointerenter", "focus", "click"])
      mark.addEventListener(event, () => choose(mark.dataset.number));
    mark.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(mark.dataset.number);
    });
  }
  if (form.querySelector("select")) {
    form.addEventListener("change", filter);
    form.hidden = false;
  }
})();
