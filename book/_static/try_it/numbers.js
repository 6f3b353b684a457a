// What the page computes by itself: sizes, masks and the loss. Images are
// (3 H W) and masks (H W), row after row, floats in [0, 1].

// Return RGBA bytes as an image.
export function toImage(bytes) {
  const n = bytes.length / 4;
  const image = new Float32Array(3 * n);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < 3; k++) image[k * n + i] = bytes[4 * i + k] / 255;
  }
  return image;
}

// Return an image as RGBA bytes.
export function toBytes(image) {
  const n = image.length / 3;
  const bytes = new Uint8ClampedArray(4 * n).fill(255); // rounds and clips
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < 3; k++) bytes[4 * i + k] = 255 * image[k * n + i];
  }
  return bytes;
}

// Return for each of `to` places the first of `from` pixels that counts, and
// the weights of those that follow: a triangle two pixels of the coarser grid
// wide.
function triangles(from, to) {
  const scale = from / to;
  const reach = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - reach + 0.5));
    const end = Math.min(from, Math.floor(centre + reach + 0.5));
    const weights = [];
    for (let j = first; j < end; j++) {
      weights.push(1 - Math.abs(j + 0.5 - centre) / reach);
    }
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((w) => w / sum) };
  });
}

// Resize planes (K H W) as Pillow does (bilinear, antialiased), and where they
// grow as PyTorch does too. `size` and `wanted` are [height, width].
export function resize(planes, size, wanted) {
  const [height, width] = size;
  const [newHeight, newWidth] = wanted;
  const n = planes.length / (height * width);
  const narrow = new Float32Array(n * height * newWidth);
  triangles(width, newWidth).forEach(({ first, weights }, x) => {
    for (let row = 0; row < n * height; row++) {
      let sum = 0;
      const at = row * width + first;
      for (let j = 0; j < weights.length; j++)
        sum += weights[j] * planes[at + j];
      narrow[row * newWidth + x] = sum;
    }
  });
  const result = new Float32Array(n * newHeight * newWidth);
  triangles(height, newHeight).forEach(({ first, weights }, y) => {
    for (let k = 0; k < n; k++) {
      const to = (k * newHeight + y) * newWidth;
      weights.forEach((weight, j) => {
        const from = (k * height + first + j) * newWidth;
        for (let x = 0; x < newWidth; x++)
          result[to + x] += weight * narrow[from + x];
      });
    }
  });
  return result;
}

// Return the pixel-wise maximum of masks, 0 where there are none.
export function maximum(masks, length) {
  const result = new Float32Array(length);
  for (const mask of masks) {
    for (let i = 0; i < length; i++) result[i] = Math.max(result[i], mask[i]);
  }
  return result;
}

// Keep an image where its mask is 1, and show the colour `fill` where it is 0.
export function composite(image, mask, fill) {
  const n = mask.length;
  return image.map((value, i) => {
    const colour = fill[Math.floor(i / n)];
    return colour + mask[i % n] * (value - colour);
  });
}

export const complement = (mask) => mask.map((value) => 1 - value);

// Return what hides all below a threshold; a threshold of 0 leaves it soft.
export const thresholded = (mask, threshold) =>
  threshold ? mask.map((value) => Number(value > threshold)) : mask;

// Lay coloured masks over an image, which turns pale and grey under them.
// `layers` are { mask, colour }, a colour red, green and blue in [0, 1].
export function overlay(image, layers, opacity) {
  const n = image.length / 3;
  const result = image.slice();
  for (let i = 0; i < n; i++) {
    const grey =
      0.299 * image[i] + 0.587 * image[n + i] + 0.114 * image[2 * n + i];
    for (let k = 0; k < 3; k++) {
      let value = image[k * n + i];
      value += opacity * (0.4 + 0.55 * grey - value);
      for (const { mask, colour } of layers) {
        value += opacity * mask[i] * (colour[k] - value);
      }
      result[k * n + i] = value;
    }
  }
  return result;
}

// --- the loss ------------------------------------------------------------
// explainer/losses.py has the same terms, with their sources; a test compares.

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

// The logarithms of p and of 1 - p. Where a float can't tell p from 1, p is
// taken as half a step away from it.
const logP = (p) => Math.log(Math.max(p, 2 ** -126));
const logNot = (p) => Math.log(Math.max(1 - p, 2 ** -25));

const crossEntropy = (probabilities, labels) =>
  mean(
    Array.from(probabilities, (p, c) => (labels[c] ? -logP(p) : -logNot(p))),
  );

// A sigmoid's probabilities turn back into logits, of which the loss takes a
// softmax.
function negativeEntropy(probabilities, scale) {
  const odds = Array.from(probabilities, (p) => Math.exp(logP(p) - logNot(p)));
  const sum = odds.reduce((a, b) => a + b);
  const shares = odds.map((odd) => odd / sum);
  const total = shares.map((p) => p * logP(p)).reduce((a, b) => a + b);
  return scale === "paper" ? total / odds.length : total;
}

function areaBound(mask, a, b) {
  const n = mask.length;
  const descending = mask.slice().sort().reverse();
  const most = (k) => descending.subarray(0, k).reduce((x, y) => x + y, 0);
  const [few, many] = [Math.floor(a * n), Math.floor(b * n)];
  return (few - most(few) + most(n) - most(many)) / n;
}

// The last row and column count a difference a second time, as in the paper's
// code.
function totalVariation(mask, size) {
  let sum = 0;
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const at = y * size + x;
      const below = y + 1 < size ? at + size : at - size;
      const right = x + 1 < size ? at + 1 : at - 1;
      sum +=
        Math.abs(mask[at] - mask[below]) + Math.abs(mask[at] - mask[right]);
    }
  }
  return sum / (size * size);
}

// Return the terms of the loss for one square image, before their weights.
// `masks` has one mask per class, `labels` 1 for each class that is there,
// `kept` and `left` the classifier's probabilities for the two halves.
export function lossTerms(masks, labels, kept, left, weights) {
  const length = masks[0].length;
  const size = Math.sqrt(length);
  const present = masks.filter((_, c) => labels[c]);
  const m = maximum(present, length);
  const n = maximum(
    masks.filter((_, c) => !labels[c]),
    length,
  );
  return {
    classification: crossEntropy(kept, labels),
    entropy: negativeEntropy(left, weights.entropy_scale),
    bound: present
      .map((mask) => areaBound(mask, weights.a, weights.b))
      .reduce((x, y) => x + y, 0),
    target_area: mean(m),
    non_target_area: mean(n),
    smoothness: totalVariation(m, size) + totalVariation(n, size),
  };
}
