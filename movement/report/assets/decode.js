// Unpacks numbers into typed arrays: the counterpart of packing.py, geometry.py and content.py.

const NONE = -2147483648;

/** Inflates raw deflate. */
async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function fromBase64(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

/** The columns in `bytes`, one after the other; each header is [count, planes, base, nullable]. */
function unpackColumns(bytes, headers) {
  let at = 0;
  return headers.map(([count, planes, base, nullable]) => {
    const values = new Int32Array(count);
    for (let plane = 0; plane < planes; plane++) {
      const shift = plane * 8;
      for (let i = 0; i < count; i++) values[i] |= bytes[at + i] << shift;
      at += count;
    }
    const offset = base - nullable;
    for (let i = 0; i < count; i++) values[i] = nullable && values[i] === 0 ? NONE : values[i] + offset;
    return values;
  });
}

/** The corridors of a city and date range: `runs` maps an origin to [first, end) of the four columns. */
function decodeSlice(bytes, headers, zones) {
  const [origins, counts, steps, mean, below, above] = unpackColumns(bytes, headers);
  const runs = new Map();
  let at = 0;
  for (let i = 0; i < origins.length; i++) {
    runs.set(origins[i], [at, at + counts[i]]);
    at += counts[i];
  }
  const destination = steps, lower = below, upper = above;
  let zone = 0;
  for (let i = 0; i < steps.length; i++) {
    zone = (zone + steps[i]) % zones;
    destination[i] = zone;
    lower[i] = below[i] === NONE ? NONE : mean[i] - below[i];
    upper[i] = above[i] === NONE ? NONE : mean[i] + above[i];
  }
  return { runs, destination, mean, lower, upper };
}

/** Outlines: for each zone its rings, each an Int32Array of x, y, x, y … in cells of the grid. */
function decodeOutlines(bytes, headers, zones) {
  const [owners, lengths, dx, dy] = unpackColumns(bytes, headers);
  const rings = Array.from({ length: zones }, () => []);
  let at = 0, x = 0, y = 0;
  for (let i = 0; i < owners.length; i++) {
    const ring = new Int32Array(lengths[i] * 2);
    for (let k = 0; k < lengths[i]; k++, at++) {
      x += (dx[at] >>> 1) ^ -(dx[at] & 1);
      y += (dy[at] >>> 1) ^ -(dy[at] & 1);
      ring[k * 2] = x;
      ring[k * 2 + 1] = y;
    }
    rings[owners[i]].push(ring);
  }
  return rings;
}
