// The tab with scenes: their masks can be painted on, and the loss answers.
import {
  add,
  attempt,
  built,
  chosen,
  find,
  findAll,
  latest,
  named,
  pixelsOf,
  rgb,
  root,
  run,
  shareCell,
  show,
  slider,
  split,
} from "./common.js";
import {
  complement,
  composite,
  lossTerms,
  maximum,
  overlay,
} from "./numbers.js";

export async function beginScenes(panel, told) {
  const { classes, size, fill, weights } = told.pairs.scenes;
  const { count, file } = told.scenes;
  const length = size * size;
  const sheet = await pixelsOf(await (await fetch(built(file))).blob(), file);
  const canvases = Object.fromEntries(
    findAll("canvas", panel).map((canvas) => [canvas.dataset.shows, canvas]),
  );
  const status = find("[role=status]", panel);
  // `measured` is the `version` of the masks that the numbers are of.
  const state = { number: -1, version: 0, measured: 0 };
  root.tryIt = { ...root.tryIt, scene: state };

  // Scene `number` of the sheet: to the left the picture, to the right the
  // truth, 0 where nothing is and c + 1 where class c is.
  function cut(number) {
    const [width, height] = [2 * size, count * size];
    const planes = [new Float32Array(3 * length), new Float32Array(length)];
    for (let i = 0; i < length; i++) {
      const row = number * size + Math.floor(i / size);
      const at = row * width + (i % size);
      for (let k = 0; k < 3; k++) {
        planes[0][k * length + i] = sheet.image[k * width * height + at];
      }
      planes[1][i] = Math.round(255 * sheet.image[at + size]);
    }
    return planes;
  }

  const layers = (masks) =>
    masks
      .map((mask, c) => ({ mask, colour: rgb(told.colours[c]) }))
      .filter((_, c) => state.labels[c]);

  function draw() {
    const m = maximum(
      state.masks.filter((_, c) => state.labels[c]),
      length,
    );
    const truth = classes.map((_, c) =>
      state.truth.map((id) => Number(id === c + 1)),
    );
    const pictures = {
      scene: state.image,
      truth: overlay(state.image, layers(truth), 0.85),
      mask: overlay(state.image, layers(state.masks), 0.85),
      kept: composite(state.image, m, fill),
      left: composite(state.image, complement(m), fill),
    };
    for (const [name, image] of Object.entries(pictures)) {
      show(canvases[name], image, [size, size]);
    }
    if (brush.at && document.activeElement === canvases.mask) outline();
  }

  // The classifier's answer to both halves, and the loss that follows.
  const measure = latest(() =>
    attempt(panel, async () => {
      const { image, labels, masks, number, version } = state;
      const m = maximum(
        masks.filter((_, c) => labels[c]),
        length,
      );
      const views = [m, complement(m)].map((mask) =>
        composite(image, mask, fill),
      );
      const [kept, left] = await Promise.all(
        views.map((v) => run("scenes", v)),
      );
      if (number !== state.number) return; // another scene since
      state.kept = [...kept.probabilities];
      state.left = [...left.probabilities];
      state.terms = lossTerms(masks, labels, state.kept, state.left, weights);
      state.measured = version;
      tell();
    }),
  );

  // Numbers: a table of probabilities, and a bar for each term.
  const rows = classes.map((name, c) => {
    const row = add(find("tbody", panel), "tr");
    named(add(row, "th"), name, told.colours[c]);
    return { row, cells: [shareCell(row), shareCell(row), shareCell(row)] };
  });
  const least = -weights.entropy * Math.log(classes.length);
  const low = Math.min(
    0,
    weights.entropy_scale === "paper" ? least / classes.length : least,
  );
  const high = 1.5; // a longer bar ends there
  const box = find(".try-it-bars", panel);
  const bars = [...Object.entries(told.terms), ["total", "L"]].map(
    ([term, symbol]) => {
      const weight = term === "total" ? 1 : weights[term];
      add(box, "span", "", weight === 1 ? symbol : `${weight} · ${symbol}`);
      const bar = add(add(box, "div", "try-it-track"), "div");
      return { term, weight, bar, text: add(box, "span", "try-it-number") };
    },
  );

  function tell() {
    rows.forEach(({ row, cells }, c) => {
      row.classList.toggle("try-it-present", state.labels[c]);
      [state.before, state.kept, state.left].forEach((p, i) => cells[i](p[c]));
    });
    const values = { ...state.terms, total: 0 };
    for (const { term, weight, bar, text } of bars) {
      const value = term === "total" ? values.total : weight * values[term];
      if (term !== "total") values.total += value;
      const end = Math.min(high, Math.max(low, value));
      const share = (x) => `${(100 * x) / (high - low)}%`;
      bar.style.left = share(Math.min(end, 0) - low);
      bar.style.width = share(Math.abs(end));
      bar.classList.toggle("try-it-below", value < 0);
      text.textContent = value.toFixed(3).replace("-", "−");
    }
    state.total = values.total;
  }

  function listClasses() {
    const choice = find(".try-it-classes", panel);
    choice.textContent = "";
    classes.forEach((name, c) => {
      if (!state.labels[c]) return;
      const label = add(choice, "label");
      const input = add(label, "input");
      Object.assign(input, { type: "radio", name: "class", value: c });
      named(label, name, told.colours[c]);
    });
    find("input", choice).checked = true;
  }

  const restore = () => {
    state.masks = state.explained.map((mask) => mask.slice());
    state.version++;
    draw();
    return measure();
  };

  const open = (number) =>
    attempt(panel, async () => {
      const [image, truth] = cut(number);
      const labels = classes.map((_, c) => Number(truth.includes(c + 1)));
      const { probabilities, masks } = await run("scenes", image);
      const explained = split(masks, length);
      Object.assign(state, { number, image, truth, labels, explained });
      state.before = [...probabilities];
      listClasses();
      const names = classes.filter((_, c) => labels[c]).join(", ");
      status.textContent = `Scene ${number + 1} of ${count}: ${names}.`;
      canvases.scene.setAttribute("aria-label", `A scene with ${names}.`);
      canvases.truth.setAttribute(
        "aria-label",
        `Where ${names} truly are, in colour.`,
      );
      await restore();
    });

  find("[data-next]", panel).addEventListener("click", () =>
    open((state.number + 1) % count),
  );
  find("[data-restore]", panel).addEventListener("click", restore);

  // The brush, by pointer or by keyboard
  const radius = slider(
    panel,
    "brush",
    (r) => `${2 * r} px`,
    () => draw(),
  );
  const brush = { at: null };

  function paint(x, y) {
    const mask = state.masks[Number(chosen(panel, "class"))];
    const value = chosen(panel, "tool") === "paint" ? 1 : 0;
    const r = radius();
    state.version++;
    for (let i = 0; i < length; i++) {
      const [dx, dy] = [(i % size) + 0.5 - x, Math.floor(i / size) + 0.5 - y];
      if (dx * dx + dy * dy <= r * r) mask[i] = value;
    }
  }

  function outline() {
    const context = canvases.mask.getContext("2d");
    for (const [colour, extra] of [
      ["black", 0.5],
      ["white", 0],
    ]) {
      context.beginPath();
      context.arc(...brush.at, radius() + extra, 0, 7);
      context.strokeStyle = colour;
      context.lineWidth = 0.5;
      context.stroke();
    }
  }

  // Paint from where the pointer was to where it is.
  function stroke(event) {
    const frame = canvases.mask.getBoundingClientRect();
    const to = [
      ((event.clientX - frame.left) / frame.width) * size,
      ((event.clientY - frame.top) / frame.height) * size,
    ];
    const from = brush.at ?? to;
    const steps = Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1])) || 1;
    for (let i = 1; i <= steps; i++) {
      paint(...[0, 1].map((k) => from[k] + ((to[k] - from[k]) * i) / steps));
    }
    brush.at = to;
    draw();
    measure();
  }

  canvases.mask.addEventListener("pointerdown", (event) => {
    canvases.mask.setPointerCapture(event.pointerId);
    brush.at = null;
    stroke(event);
  });
  canvases.mask.addEventListener("pointermove", (event) => {
    if (canvases.mask.hasPointerCapture(event.pointerId)) stroke(event);
  });
  canvases.mask.addEventListener("keydown", (event) => {
    const step = {
      ArrowLeft: [-2, 0],
      ArrowRight: [2, 0],
      ArrowUp: [0, -2],
      ArrowDown: [0, 2],
    }[event.key];
    if (!step && event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    brush.at ??= [size / 2, size / 2];
    if (step) {
      brush.at = brush.at.map((x, k) =>
        Math.min(size, Math.max(0, x + step[k])),
      );
    } else {
      paint(...brush.at);
      measure();
    }
    draw();
  });
  for (const name of ["focus", "blur"])
    canvases.mask.addEventListener(name, draw);

  await open(0);
}
