// The timeline as plain data. Every function returns new objects and changes none: a snapshot is a reference.

// An update that comes before the editor is seen for the first time takes all other props away: then those count that
// it was made with.
const prop = name => props[name] ?? DEFAULTS[name];

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const round2 = x => Math.round(x * 100) / 100;
const number = x => String(round2(x));

const slotsOf = grid => Math.floor((grid.num_frames - 1) / grid.temporal_stride) + 1;
// Slot 0 is frame 0 alone; slot k is frames (k-1)*stride+1 .. k*stride.
const firstFrame = (grid, slot) => slot === 0 ? 0 : (slot - 1) * grid.temporal_stride + 1;
const framesIn = (grid, slot, span) => firstFrame(grid, slot + span) - firstFrame(grid, slot);
const framesForSlots = (grid, slots) => (slots - 1) * grid.temporal_stride + 1;
const sameClock = (one, other) => one.fps === other.fps && one.temporal_stride === other.temporal_stride;
const inTime = keyframes => [...keyframes].sort((a, b) => a.slot - b.slot);
const endOf = k => k.slot + k.span;

/** The longest span that a keyframe's source can fill from `slot` on; 0 when it is too short for even one slot. */
function longestSpan(grid, k, slot) {
  if (k.kind === 'image') return 1;
  const frames = k.frames - k.start;
  if (slot === 0) return frames < 1 ? 0 : 1 + Math.floor((frames - 1) / grid.temporal_stride);
  return Math.floor(frames / grid.temporal_stride);
}

/** How many slots of a grid last about as long as all of another grid's. */
const slotsLike = (grid, other) =>
  1 + Math.max(0, Math.round((other.num_frames / other.fps * grid.fps - 1) / grid.temporal_stride));

/** The span that a keyframe gets in the free slots from `slot` on; 1 also where there is room for less. */
const fillingSpan = (value, k, slot) => Math.max(1, Math.min(freeRun(value, slot), longestSpan(value.grid, k, slot)));

/** One noise per slot of a new span: the last one is repeated, or the surplus is cut off. */
const resized = (noise, span) => Array.from({ length: span }, (_, i) => noise[Math.min(i, noise.length - 1)]);

/** A keyframe at another slot, shortened where its source has too few frames there; null where it cannot be. */
function placedAt(grid, k, slot) {
  const span = Math.min(k.span, longestSpan(grid, k, slot));
  if (slot < 0 || span < 1 || slot + span > slotsOf(grid)) return null;
  return span === k.span ? { ...k, slot } : { ...k, slot, span, noise: resized(k.noise, span) };
}

/** Which slots are taken, as an array of booleans; keyframes in `except` (a Set of ids) do not count. */
function takenSlots(value, except) {
  const taken = Array(slotsOf(value.grid)).fill(false);
  for (const k of value.keyframes) {
    if (!except?.has(k.id)) taken.fill(true, k.slot, Math.min(endOf(k), taken.length));
  }
  return taken;
}

const isFree = (taken, k) => !taken.slice(k.slot, endOf(k)).includes(true);

/** The free slot that is nearest to `wanted`, later ones first; null when all are taken. */
function freeSlot(value, wanted) {
  const taken = takenSlots(value);
  for (let away = 0; away < taken.length; away++) {
    for (const slot of [wanted + away, wanted - away]) if (taken[slot] === false) return slot;
  }
  return null;
}

/** How many free slots follow from `slot` on. */
function freeRun(value, slot) {
  const taken = takenSlots(value).indexOf(true, slot);
  return (taken < 0 ? slotsOf(value.grid) : taken) - slot;
}

/** The value with one more keyframe, at `wanted` or as near as it fits; [value or null, key of the words why not]. */
function inserted(value, k, wanted) {
  const slots = slotsOf(value.grid), taken = takenSlots(value);
  if (!taken.includes(false)) return [null, 'full'];
  for (const whole of [true, false]) {
    for (let away = 0; away < slots; away++) {
      for (const slot of [wanted + away, wanted - away]) {
        if (taken[slot] !== false) continue;
        const span = whole ? k.span : Math.min(k.span, freeRun(value, slot));
        const placed = placedAt(value.grid, { ...k, span, noise: resized(k.noise, span) }, slot);
        if (placed && isFree(taken, placed)) return [{ ...value, keyframes: [...value.keyframes, placed] }, null];
      }
    }
  }
  return [null, longestSpan(value.grid, k, 1) ? 'no_room' : 'too_short'];
}

const replaced = (value, ...changed) => {
  const by = new Map(changed.map(k => [k.id, k]));
  return { ...value, keyframes: value.keyframes.map(k => by.get(k.id) ?? k) };
};

/** The value with the keyframes in `ids` moved by `delta` slots, or by the nearest shift at which all of them fit. */
function moved(value, ids, delta) {
  const taken = takenSlots(value, ids);
  const moving = value.keyframes.filter(k => ids.has(k.id));
  const at = shift => {
    const placed = moving.map(k => placedAt(value.grid, k, k.slot + shift));
    return placed.every(k => k && isFree(taken, k)) ? placed : null;
  };
  for (let away = 0; away <= 2 * taken.length; away++) {
    for (const shift of [delta + away, delta - away]) {
      const placed = at(shift);
      if (placed) return shift === 0 ? value : replaced(value, ...placed);
    }
  }
  return value;
}

/** The next place for one keyframe in a direction (1 or -1), beyond `from`; the value itself when there is none. */
function stepped(value, k, direction, from = k.slot) {
  const taken = takenSlots(value, new Set([k.id]));
  for (let slot = from + direction; slot >= 0 && slot < taken.length; slot += direction) {
    const placed = placedAt(value.grid, k, slot);
    if (placed && isFree(taken, placed)) return replaced(value, placed);
  }
  return value;
}

/** A clip whose right end is dragged to the end of `slot`: [value, key of the words why it stopped or null]. */
function rightEndAt(value, k, slot) {
  const wanted = Math.max(1, slot - k.slot + 1);
  const next = takenSlots(value, new Set([k.id])).indexOf(true, k.slot);
  const room = (next < 0 ? slotsOf(value.grid) : next) - k.slot;
  const source = longestSpan(value.grid, k, k.slot);
  const span = Math.max(1, Math.min(wanted, room, source));
  let reason = null;
  if (span < wanted) reason = source <= room ? 'ends' : next < 0 ? 'clip_end' : 'next_to';
  return [span === k.span ? value : replaced(value, { ...k, span, noise: resized(k.noise, span) }), reason];
}

/** A clip whose left end is dragged to the start of `slot`; its frames stay where they are in time. */
function leftEndAt(value, k, slot) {
  const wanted = clamp(slot, 0, endOf(k) - 1);
  const before = takenSlots(value, new Set([k.id])).lastIndexOf(true, k.slot);
  const startAt = s => k.start + firstFrame(value.grid, s) - firstFrame(value.grid, k.slot);
  let at = Math.max(wanted, before + 1), reason = at > wanted ? 'next_to' : null;
  while (startAt(at) < 0) { at++; reason = 'begins'; }
  if (at === k.slot) return [value, reason];
  const shift = at - k.slot;
  const noise = shift > 0 ? k.noise.slice(shift) : [...Array(-shift).fill(k.noise[0]), ...k.noise];
  return [replaced(value, { ...k, slot: at, span: k.span - shift, start: startAt(at), noise }), reason];
}

/** The noise of several keyframes shifted by `by`, each within 0 and 1. `only`: the index of one slot of the span. */
function louder(value, keyframes, by, only = null) {
  const shift = (x, i) => only === null || only === i ? round2(clamp(x + by, 0, 1)) : x;
  return replaced(value, ...keyframes.map(k => ({ ...k, noise: k.noise.map(shift) })));
}

/** Numbers laid over the slots of keyframes in the order of time, one per slot. */
function withNoises(value, keyframes, numbers) {
  let at = 0;
  return replaced(value, ...inTime(keyframes).map(k => ({ ...k, noise: numbers.slice(at, (at += k.span)) })));
}

/** `count` numbers that go evenly from one to the other. */
const ramp = (from, to, count) =>
  Array.from({ length: count }, (_, i) => round2(count === 1 ? from : from + (to - from) * i / (count - 1)));

/** What the sampler multiplies its noise with, per slot: 1 where nothing is known. */
function multipliers(value) {
  const all = Array(slotsOf(value.grid)).fill(1);
  for (const k of value.keyframes) {
    k.noise.forEach((x, i) => { if (k.slot + i < all.length) all[k.slot + i] = x; });
  }
  return all;
}

/** What two values have in common decides whether one is news: ids, addresses and thumbnails do not count. */
const essence = value => value && JSON.stringify([
  value.grid.num_frames, value.grid.temporal_stride, value.grid.fps, value.width, value.height,
  inTime(value.keyframes).map(k => [k.slot, k.span, k.noise, k.kind, k.start, k.begin ?? 0, k.end ?? null, k.fit, k.focus,
    k.file.path]),
]);

let idsMade = 0;
const newId = () => `n${(idsMade++).toString(36)}${Math.random().toString(36).slice(2, 8)}`;

// --- words ----------------------------------------------------------------------------------------------------------

function say(key, values = {}) {
  const text = prop('strings')?.[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

function noiseWords(noise) {
  const steps = [[0, 'exact'], [0.17, 'nearly'], [0.42, 'natural'], [0.67, 'loosely'], [0.99, 'composition']];
  return say(steps.find(([most]) => noise <= most)?.[1] ?? 'ignored');
}

function framesText(grid, slot, span) {
  const first = firstFrame(grid, slot), last = first + framesIn(grid, slot, span) - 1;
  return first === last ? say('frame', { first }) : say('frames', { first, last });
}

function noiseText(noise) {
  const low = Math.min(...noise), high = Math.max(...noise);
  if (low === high) return say('noise_text', { noise: number(low), words: noiseWords(low) });
  return say('noises_text', { low: number(low), high: number(high) });
}

/** Where a keyframe is and what it does: "slot 3, frames 13 to 18, noise 0.2: this frame with natural motion". */
function keyframeText(grid, k) {
  const frames = framesText(grid, k.slot, k.span);
  const place = say(k.span === 1 ? 'slot_text' : 'slots_text', { slot: k.slot, last: endOf(k) - 1, frames });
  return `${place}, ${noiseText(k.noise)}`;
}
