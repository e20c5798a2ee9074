// Columns of numbers as packing.py packs them: gzip in base64, bytes of one weight together.
"use strict";

/** A typed array. Raises what the browser raises for a damaged one. */
async function unpack({ type, gzip }) {
  const packed = Uint8Array.from(atob(gzip), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const Kind = { Uint8Array, Uint16Array, Uint32Array, Int8Array, Int16Array, Int32Array, Float32Array, Float64Array }[type];
  const width = Kind.BYTES_PER_ELEMENT;
  const count = planes.length / width;
  const bytes = new Uint8Array(planes.length);
  for (let plane = 0; plane < width; plane += 1) {
    for (let i = 0, from = plane * count, to = plane; i < count; i += 1, from += 1, to += width) bytes[to] = planes[from];
  }
  return new Kind(bytes.buffer);
}

/** Several by name. */
async function unpackAll(columns) {
  const names = Object.keys(columns);
  const arrays = await Promise.all(names.map((name) => unpack(columns[name])));
  return Object.fromEntries(names.map((name, i) => [name, arrays[i]]));
}
