// The tab that explains photographs.
import {
  Said,
  add,
  attempt,
  built,
  chosen,
  find,
  findAll,
  latest,
  named,
  percent,
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
  maximum,
  overlay,
  resize,
  thresholded,
} from "./numbers.js";

const MOST_BYTES = 100e6; // of a photograph's file
const MOST_SHOWN = 1e6; // pixels that are drawn

export async function beginPhotographs(panel, told) {
  const { classes, size, fill } = told.pairs.animals;
  const canvas = find("canvas", panel);
  const status = find("[role=status]", panel);
  const body = find("tbody", panel);
  // `measured` is the `version` that the numbers are of. For tests and the
  // curious the state lies on the page's element.
  const state = { name: "", found: [], version: 0, measured: 0 };
  root.tryIt = { ...root.tryIt, photograph: state };

  const threshold = slider(
    panel,
    "threshold",
    (t) => (t ? t.toFixed(2) : "soft"),
    () => {
      state.version++;
      draw();
      measure();
    },
  );
  const opacity = slider(panel, "opacity", percent, () => draw());

  const shown = () => state.found.filter(({ box }) => box.checked);

  function draw() {
    if (!state.image) return;
    const layers = shown().map(({ large, colour }) => ({
      mask: thresholded(large, threshold()),
      colour: rgb(colour),
    }));
    const view = chosen(panel, "view");
    const m = maximum(
      layers.map(({ mask }) => mask),
      state.width * state.height,
    );
    const drawn = {
      masks: () => overlay(state.image, layers, opacity()),
      kept: () => composite(state.image, m, fill),
      left: () => composite(state.image, complement(m), fill),
    }[view]();
    show(canvas, drawn, [state.height, state.width]);
    const names =
      shown()
        .map(({ name }) => name)
        .join(", ") || "no class";
    const what = {
      masks: `with the masks of ${names} in colour`,
      kept: `reduced to the masks of ${names}`,
      left: `without what the masks of ${names} cover`,
    }[view];
    canvas.setAttribute("aria-label", `${state.name}, ${what}.`);
  }

  // What the classifier makes of each mask, as the threshold leaves it.
  const measure = latest(() =>
    attempt(panel, async () => {
      const { version } = state;
      for (const each of state.found) {
        const mask = thresholded(each.mask, threshold());
        const views = [mask, complement(mask)].map((m) =>
          composite(state.seen, m, fill),
        );
        const [kept, left] = await Promise.all(
          views.map((v) => run("animals", v)),
        );
        each.kept = kept.probabilities[each.c];
        each.left = left.probabilities[each.c];
        each.tell();
      }
      state.measured = version;
    }),
  );

  function list(probabilities) {
    body.textContent = "";
    for (const each of state.found) {
      const row = add(body, "tr");
      const label = add(add(row, "th"), "label");
      each.box = add(label, "input");
      Object.assign(each.box, { type: "checkbox", checked: true });
      each.box.addEventListener("input", draw);
      named(label, each.name, each.colour);
      const cells = [shareCell(row), shareCell(row), shareCell(row)];
      each.tell = () =>
        [each.before, each.kept, each.left].forEach((p, i) => cells[i](p));
      each.tell();
    }
    const most = probabilities.indexOf(Math.max(...probabilities));
    status.textContent = state.found.length
      ? `Found in ${state.name}: ${state.found.map(({ name }) => name).join(", ")}.`
      : `Nothing found in ${state.name}: of the classes ${classes[most]} is ` +
        `the most probable, with ${percent(probabilities[most])}.`;
    for (const part of findAll(".try-it-found", panel)) {
      part.hidden = !state.found.length;
    }
  }

  const explain = (source, name) =>
    attempt(panel, async () => {
      if (source.size > MOST_BYTES) {
        throw new Said(
          `${name} has ${Math.round(source.size / 1e6)} MB, more than ` +
            `${MOST_BYTES / 1e6}: scale it down first.`,
        );
      }
      status.textContent = "";
      const picture = await pixelsOf(source, name, MOST_SHOWN);
      status.textContent = `Looking at ${name} …`;
      const at = [picture.height, picture.width];
      const seen = resize(picture.image, at, [size, size]);
      const { probabilities, masks } = await run("animals", seen);
      const found = split(masks, size * size)
        .map((mask, c) => ({
          c,
          mask,
          name: classes[c],
          before: probabilities[c],
        }))
        .filter(({ before }) => before >= 0.5);
      for (const each of found) {
        each.colour = told.colours[each.c];
        each.large = resize(each.mask, [size, size], at);
      }
      Object.assign(state, picture, { name, seen, found });
      state.version++;
      list([...probabilities]);
      draw();
      await measure();
    });

  // Where photographs come from
  const file = find("input[type=file]", panel);
  file.addEventListener("change", async () => {
    if (file.files.length) await explain(file.files[0], file.files[0].name);
    file.value = ""; // the same file again is a change, too
  });
  panel.addEventListener("dragover", (event) => event.preventDefault());
  panel.addEventListener("drop", (event) => {
    event.preventDefault();
    const dropped = event.dataTransfer.files[0];
    if (dropped) explain(dropped, dropped.name);
  });
  for (const { file: name, title } of told.photographs) {
    const button = add(find(".try-it-free", panel), "button");
    button.type = "button";
    const picture = add(button, "img");
    picture.src = built(name);
    picture.alt = `Explain ${title}`;
    button.addEventListener("click", () => explain(picture, title));
  }
  camera(panel, (still) => explain(still, "your photograph"));

  for (const input of findAll("input[name=view]", panel)) {
    input.addEventListener("input", draw);
  }
  find("[data-save]", panel).addEventListener("click", () =>
    canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${state.name.replace(/\.\w+$/, "")}_${chosen(panel, "view")}.png`;
      link.click();
      URL.revokeObjectURL(link.href);
    }),
  );
}

// Show what the camera sees until the reader takes the picture.
function camera(panel, onStill) {
  const button = find("[data-camera]", panel);
  const video = find("video", panel);
  button.hidden = !navigator.mediaDevices?.getUserMedia;
  const stop = () => {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    video.hidden = true;
    button.textContent = "Camera";
  };
  button.addEventListener("click", () =>
    attempt(panel, async () => {
      if (video.srcObject) {
        const still = await createImageBitmap(video);
        stop();
        return onStill(still);
      }
      try {
        video.srcObject = await navigator.mediaDevices.getUserMedia({
          video: { facingMode: "environment" },
        });
      } catch {
        throw new Said(
          "There is no camera, or this page may not use it: choose a file.",
        );
      }
      video.hidden = false;
      await video.play();
      button.textContent = "Take the picture";
    }),
  );
}
