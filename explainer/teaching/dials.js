// Turns each <div class="dials"> with its JSON into dials that move. Everything
// shown was computed when the page was built: a position looks up its frame.
(() => {
  "use strict";

  const add = (parent, tag, className = "", text = "") => {
    const child = parent.appendChild(document.createElement(tag));
    if (className) child.className = className;
    child.textContent = text;
    return child;
  };

  function start(root) {
    const data = JSON.parse(root.querySelector("script").textContent);
    const { dials, frames } = data;
    const written = (position) =>
      dials.map((d, k) => `${d.name} = ${d.values[position[k]]}`).join(", ");

    // How far a frame is from what was asked: the dial just moved counts
    // most, then choices (another image is another question), then the rest.
    const distance = (asked, there, moved) =>
      dials.reduce((sum, dial, k) => {
        const steps = dial.slider
          ? Math.abs(asked[k] - there[k]) / (dial.values.length - 1)
          : Number(asked[k] !== there[k]);
        const rank = k === moved ? 1e6 : dial.slider ? 1 : 1e3;
        return sum + rank * steps;
      }, 0);

    const nearest = (asked, moved) => {
      const from = frames.map((f) => distance(asked, f.at, moved));
      return frames[from.indexOf(Math.min(...from))];
    };

    let position = data.start;

    // What can be moved
    const group = (className, label) => {
      const box = add(root, "div", className);
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", label);
      return box;
    };
    const presets = Object.entries(data.presets);
    const row = presets.length ? group("dials-presets", "presets") : null;
    const buttons = presets.map(([name, partial]) => {
      const button = add(row, "button", "", name);
      button.type = "button";
      const target = () => position.map((i, k) => partial[k] ?? i);
      button.addEventListener("click", () => show(target(), -1));
      return { button, partial };
    });
    const box = group("dials-controls", "dials");
    const controls = dials.map((dial, k) => {
      const label = add(box, "label");
      add(label, "span", "", dial.name);
      const input = add(label, dial.slider ? "input" : "select");
      input.setAttribute("aria-label", dial.name);
      let output = null;
      if (dial.slider) {
        Object.assign(input, { type: "range", min: 0, step: 1 });
        input.max = dial.values.length - 1;
        output = add(label, "output");
      } else {
        dial.values.forEach((value, i) => {
          add(input, "option", "", value).value = i;
        });
      }
      input.addEventListener("input", () => {
        const asked = [...position];
        asked[k] = Number(input.value);
        show(asked, k);
      });
      return { input, output };
    });

    // What is shown
    const shelf = add(root, "div", "dials-pictures");
    const pictures = data.titles.map((title) => {
      const figure = add(shelf, "figure", "dials-picture");
      const layers = add(figure, "div", "dials-layers");
      add(figure, "figcaption", "", title);
      return { title, figure, layers };
    });
    const bars = add(root, "div", "dials-bars");
    const [low, high] = data.span;
    const percent = (value) => (100 * value) / (high - low);
    const numbers = data.numbers.map((name) => {
      add(bars, "span", "", name);
      const bar = add(add(bars, "div", "dials-track"), "div", "dials-bar");
      return { bar, text: add(bars, "span", "dials-number") };
    });
    const status = add(root, "p", "dials-status");
    status.setAttribute("role", "status"); // announced when it changes

    function draw({ title, figure, layers }, stack) {
      while (layers.children.length > stack.length) layers.lastChild.remove();
      stack.forEach((index, i) => {
        const img = layers.children[i] ?? add(layers, "img");
        if (img.src !== data.pictures[index]) img.src = data.pictures[index];
        img.alt = i ? "" : `${data.alt} ${title}; ${written(position)}.`;
        img.style.imageRendering = data.smooth[index] ? "auto" : "pixelated";
      });
      figure.classList.toggle("dials-wide", data.smooth[stack[0]]);
    }

    function show(asked, moved) {
      const frame = nearest(asked, moved);
      position = frame.at;
      controls.forEach(({ input, output }, k) => {
        const value = dials[k].values[position[k]];
        input.value = position[k];
        if (!output) return;
        output.textContent = value;
        input.setAttribute("aria-valuetext", value);
      });
      buttons.forEach(({ button, partial }) => {
        const on = position.every((i, k) => (partial[k] ?? i) === i);
        button.setAttribute("aria-pressed", on);
      });
      pictures.forEach((picture, i) => draw(picture, frame.pictures[i]));
      numbers.forEach(({ bar, text }, i) => {
        const value = frame.numbers[i];
        bar.style.left = `${percent(Math.min(value, 0) - low)}%`;
        bar.style.width = `${percent(Math.abs(value))}%`;
        bar.classList.toggle("dials-below", value < 0);
        text.textContent = value.toFixed(data.digits);
      });
      const exact = asked.every((i, k) => i === position[k]);
      status.textContent = [
        exact ? "" : `Not computed beforehand: ${written(asked)}.`,
        `${exact ? "Shown" : "The nearest that was"}: ${written(position)}.`,
      ].join(" ").trim();
    }

    show(position, -1);
  }

  for (const root of document.querySelectorAll(".dials:not([data-ready])")) {
    root.dataset.ready = "";
    start(root);
  }
})();
