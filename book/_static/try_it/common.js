// What the tabs of the page *Try it* have in common: errors in words, the
// worker that runs the networks, pictures and controls.
import { toBytes, toImage } from "./numbers.js";

const MOST_PIXELS = 64e6; // of a photograph, as many as the package reads

export const root = document.querySelector(".try-it");
export const find = (selector, from = root) => from.querySelector(selector);
export const findAll = (selector, from = root) => [
  ...from.querySelectorAll(selector),
];
export const built = (name) => new URL(`built/${name}`, import.meta.url);
export const percent = (p) => `${Math.round(100 * p)}%`;

export const add = (parent, tag, className = "", text = "") => {
  const child = parent.appendChild(document.createElement(tag));
  if (className) child.className = className;
  child.textContent = text;
  return child;
};

// --- errors, in words ------------------------------------------------------

export class Said extends Error {} // its message is a sentence for the reader

function inWords(error) {
  const message = String(error?.message ?? error);
  if (error instanceof Said) return message;
  if (/memory|alloc/i.test(message)) {
    return (
      "The browser has run out of memory: close other tabs, or take a " +
      "smaller picture."
    );
  }
  return `That did not work: ${message}. Reload the page to try again.`;
}

// Do something; what goes wrong is said in the panel.
export async function attempt(panel, work) {
  const alert = find("[role=alert]", panel);
  alert.textContent = "";
  try {
    return await work();
  } catch (error) {
    alert.textContent = inWords(error);
  }
}

// Return what does `work`, never twice at once; asked for meanwhile, it does
// it once more in the end.
export function latest(work) {
  let running = false;
  let again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    try {
      while (again) {
        again = false;
        await work();
      }
    } finally {
      running = false;
    }
  };
}

// --- the worker ----------------------------------------------------------------

let worker = null;
let asked = 0;
const waiting = new Map(); // what the worker has not answered yet, by number

function startWorker() {
  worker = new Worker(new URL("runtime.js", import.meta.url), {
    type: "module",
  });
  worker.addEventListener(
    "message",
    ({ data: { id, bytes, error, result } }) => {
      const { resolve, reject, onBytes } = waiting.get(id);
      if (bytes) return onBytes(bytes);
      waiting.delete(id);
      if (error) reject(new Error(error));
      else resolve(result);
    },
  );
  worker.addEventListener("error", () => {
    const error = new Said(
      "The program that runs the networks did not start: this browser may be " +
        "too old for it, or the server lacks a file.",
    );
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
    worker = null;
  });
}

// Return what the worker answers; `onBytes` hears how much it has fetched.
export function ask(request, onBytes) {
  if (!worker) startWorker();
  return new Promise((resolve, reject) => {
    const id = asked++;
    waiting.set(id, { resolve, reject, onBytes });
    worker.postMessage({ id, ...request });
  });
}

export const run = (pair, image) => ask({ task: "run", pair, image });

// --- pictures ------------------------------------------------------------------

// Return what a picture shows, on white where it is transparent, in at most
// so many pixels. `name` is what errors call it.
export async function pixelsOf(source, name, most = Infinity) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(source);
  } catch {
    throw new Said(
      `${name} is not a picture that this browser can read: choose a JPEG, ` +
        "PNG or WebP file.",
    );
  }
  const { width: w, height: h } = bitmap;
  if (w * h > MOST_PIXELS) {
    throw new Said(
      `${name} has ${w} × ${h} pixels, more than ${MOST_PIXELS / 1e6} ` +
        "million: scale it down first.",
    );
  }
  const scale = Math.min(1, Math.sqrt(most / (w * h)));
  const width = Math.max(1, Math.floor(scale * w));
  const height = Math.max(1, Math.floor(scale * h));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  return { image: toImage(data), width, height };
}

export function show(canvas, image, [height, width]) {
  canvas.width = width;
  canvas.height = height;
  const data = new ImageData(toBytes(image), width, height);
  canvas.getContext("2d").putImageData(data, 0, 0);
}

// --- controls and tables ---

// Return what asks a slider for its value. It says it beside itself, in the
// words of `written`, and calls `onChange` when it is moved.
export function slider(panel, name, written, onChange) {
  const input = find(`input[name=${name}]`, panel);
  const output = find(".try-it-number", input.parentElement);
  const tell = () => {
    output.textContent = written(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  tell();
  input.addEventListener("input", () => {
    tell();
    onChange();
  });
  return () => Number(input.value);
}

export const chosen = (panel, name) =>
  find(`input[name=${name}]:checked`, panel)?.value;

// A colour of the package's figures, "#rrggbb", as numbers in [0, 1].
export const rgb = (colour) =>
  [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);

// Masks (C H W) as a list of C.
export const split = (masks, length) =>
  Array.from({ length: masks.length / length }, (_, c) =>
    masks.slice(c * length, (c + 1) * length),
  );

// Add a cell to a table's row; return what writes and draws a share in it.
export function shareCell(row) {
  const cell = add(row, "td");
  return (p) => {
    cell.textContent = p === undefined ? "…" : percent(p);
    cell.style.setProperty("--share", p ?? 0);
  };
}

// Write a class's name behind its colour.
export function named(cell, name, colour) {
  add(cell, "span", "try-it-swatch").style.background = colour;
  cell.append(name);
}
