// The worker that runs the networks, so that the page answers meanwhile. It
// alone knows ONNX Runtime.
import * as ort from "./built/ort.wasm.bundle.min.mjs";

const PROGRAM = "ort-wasm-simd-threaded.wasm";
const sessions = {};

// More threads than one need headers that simple servers do not send.
ort.env.wasm.numThreads = 1;

// Return a file's bytes; `onBytes` hears how many have come.
async function fetched(name, onBytes) {
  const answer = await fetch(new URL(`built/${name}`, import.meta.url));
  if (!answer.ok) {
    throw new Error(`the server has no ${name} (${answer.status})`);
  }
  const parts = [];
  const reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    onBytes(value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

// Fetch a pair of networks, and before the first the program itself.
async function load({ pair }, onBytes) {
  ort.env.wasm.wasmBinary ??= await fetched(PROGRAM, onBytes);
  const file = await fetched(`${pair}.onnx`, onBytes);
  sessions[pair] = await ort.InferenceSession.create(file, {
    executionProviders: ["wasm"],
  });
}

// Return probabilities (C) and masks (C H W) of an image (3 H W).
async function run({ pair, image }) {
  const size = Math.sqrt(image.length / 3);
  const tensor = new ort.Tensor("float32", image, [1, 3, size, size]);
  const answer = await sessions[pair].run({ image: tensor });
  return {
    probabilities: answer.probabilities.data,
    masks: answer.masks.data,
  };
}

const tasks = { load, run };
let last = Promise.resolve(); // a session does one thing at a time

addEventListener("message", ({ data: { id, task, ...request } }) => {
  const onBytes = (bytes) => postMessage({ id, bytes });
  last = last
    .then(() => tasks[task](request, onBytes))
    .then((result) => postMessage({ id, result }))
    .catch((error) =>
      postMessage({ id, error: String(error?.message ?? error) }),
    );
});
