// What is seen of the timeline: slots, curve, keyframes. Nodes are kept by key, and only what changed is drawn again.

const RULER = 22, CURVE = 116, PAD = 14, LANE = 72, LANE_TOP = RULER + CURVE + 4;
const ZERO_WIDTH = 56;  // slot 0 holds one frame; it keeps a width that a picture fits into
const TILE = 64;        // how wide a picture of a filmstrip should be, at least
const coarse = window.matchMedia('(pointer: coarse)');

let value = null;          // what is edited; see model.js
let chosen = new Set();    // ids of the chosen keyframes
let several = false;       // whether a press adds to what is chosen or takes away, as with Shift
let cursor = null;         // the chosen slot, where the next keyframe goes
let zoom = 'auto';         // or 'fit', or pixels per slot
let geo = null;            // { slots, reach, zero, width, total }: widths of slot 0 and of the others, in pixels
let viewWidth = 0;

// --- nodes ----------------------------------------------------------------------------------------------------------

const root = element.querySelector('.te');
const SVG = 'http://www.w3.org/2000/svg';

function make(tag, name, parent, text) {
  const node = document.createElement(tag);
  node.className = name;
  if (text != null) node.textContent = text;
  parent?.append(node);
  return node;
}

function shape(tag, name, parent) {
  const node = document.createElementNS(SVG, tag);
  node.setAttribute('class', name);
  parent.append(node);
  return node;
}

const write = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const mark = (node, name, text) => { if (node.getAttribute(name) !== String(text)) node.setAttribute(name, text); };

const ICONS = {
  undo: 'M7 4 3 8l4 4M3 8h8a5 5 0 0 1 0 10H8',
  redo: 'M13 4l4 4-4 4M17 8H9a5 5 0 0 0 0 10h3',
  minus: 'M4 10h12',
  plus: 'M4 10h12M10 4v12',
  save: 'M10 3v9M6 9l4 4 4-4M4 16h12',
  load: 'M10 13V4M6 7l4-4 4 4M4 16h12',
  clear: 'M5 6h10M8 6V4h4v2M6 6l1 11h6l1-11',
  help: 'M7.5 7.5a2.5 2.5 0 1 1 3.6 2.2c-.8.4-1.1.9-1.1 1.8M10 14.6v.4',
};

function button(name, parent, { icon, text, title, press }) {
  const node = make('button', `te-button ${name}`, parent);
  node.type = 'button';
  if (icon) {
    const box = shape('svg', 'te-icon', node);
    box.setAttribute('viewBox', '0 0 20 20');
    box.setAttribute('aria-hidden', 'true');
    shape('path', '', box).setAttribute('d', ICONS[icon]);
  }
  if (text) make('span', '', node, text);
  if (title) { node.title = title; node.setAttribute('aria-label', title); }
  node.addEventListener('click', press);
  return node;
}

/** A picture's address if it may be shown: a data URL, or a file that this server serves. */
function safeAddress(address) {
  if (typeof address !== 'string') return '';
  if (address.startsWith('data:image/')) return address;
  try {
    const url = new URL(address, location.href);
    return url.origin === location.origin && url.pathname.includes('/gradio_api/file=') ? url.href : '';
  } catch { return ''; }
}

function picture(parent, address) {
  const node = make('img', 'te-picture', parent);
  node.alt = '';
  node.decoding = 'async';
  node.draggable = false;
  const safe = safeAddress(address);
  if (safe) node.src = safe;
  return node;
}

root.tabIndex = -1;
root.setAttribute('role', 'group');
const bar = make('div', 'te-bar', root);
const alertLine = make('div', 'te-alert', root);
alertLine.setAttribute('role', 'alert');
const noticeLine = make('div', 'te-notice', root);
noticeLine.setAttribute('role', 'status');
const resultBar = make('div', 'te-result', root);
const body = make('div', 'te-body', root);
const axis = make('div', 'te-axis', body);
const scroll = make('div', 'te-scroll', body);
const tracks = make('div', 'te-tracks', scroll);
const ruler = make('div', 'te-ruler', tracks);
const cellLayer = make('div', 'te-cells', tracks);
cellLayer.setAttribute('role', 'group');
const curve = shape('svg', 'te-curve', tracks);
curve.setAttribute('aria-hidden', 'true');
const bands = shape('g', '', curve);
const area = shape('path', 'te-area', curve);
const live = shape('path', 'te-live', curve);
const line = shape('path', 'te-line', curve);
const keyLayer = make('div', 'te-keys', tracks);
const tip = make('div', 'te-tip', tracks);
const under = make('div', 'te-under', root);
const inspector = make('div', 'te-inspector', root);
tip.hidden = true;

// --- geometry: computed when the size, the zoom or the grid changes, and never while something is dragged -----------

function layOut() {
  const slots = slotsOf(value.grid);
  const reach = Math.max(slots, ...value.keyframes.map(endOf));
  const room = Math.max(viewWidth, 120);
  const fitting = reach > 1 ? (room - ZERO_WIDTH) / (reach - 1) : room;
  const comfortable = coarse.matches ? 40 : 26;
  let width = zoom === 'auto' ? Math.max(comfortable, fitting) : zoom === 'fit' ? fitting : Math.max(zoom, fitting);
  width = Math.max(width, 5);
  const zero = reach > 1 ? Math.max(ZERO_WIDTH, width / value.grid.temporal_stride) : Math.min(room, 200);
  if (zoom === 'fit' || width === fitting) width = Math.max(5, (room - zero) / Math.max(1, reach - 1));
  const total = zero + width * (reach - 1);
  const same = geo && geo.slots === slots && geo.reach === reach && geo.zero === zero && geo.width === width;
  if (!same) geo = { slots, reach, zero, width, total };
}

const left = slot => slot === 0 ? 0 : geo.zero + (slot - 1) * geo.width;
const widthOf = (slot, span = 1) => left(slot + span) - left(slot);
const height = noise => RULER + PAD + (1 - noise) * (CURVE - 2 * PAD);
const slotAt = x => clamp(x < geo.zero ? 0 : 1 + Math.floor((x - geo.zero) / geo.width), 0, geo.reach - 1);
const perFrame = () => geo.width / value.grid.temporal_stride;
const leftOfFrame = frame => frame < 1 ? frame * geo.zero : geo.zero + (frame - 1) * perFrame();

// --- slots ----------------------------------------------------------------------------------------------------------

const cells = [];
let drawnGeo = null, drawnGrid = null;

function drawGrid() {
  if (drawnGeo === geo && drawnGrid === value.grid) return;
  drawnGeo = geo;
  drawnGrid = value.grid;
  tracks.style.width = `${geo.total}px`;
  curve.setAttribute('width', geo.total);
  curve.setAttribute('height', RULER + CURVE);
  while (cells.length > geo.reach) cells.pop().box.remove();
  while (cells.length < geo.reach) cells.push(makeCell(cells.length));
  cells.forEach(drawCell);
  drawRuler();
}

function makeCell(slot) {
  const box = make('div', 'te-cell', cellLayer);
  box.dataset.slot = slot;
  box.setAttribute('role', 'button');
  make('div', 'te-well', box);
  const foot = make('div', 'te-foot', box);
  return { box, index: make('span', 'te-index', foot, String(slot)), frames: make('span', 'te-frames', foot) };
}

function drawCell({ box, index, frames }, slot) {
  const wide = widthOf(slot);
  const every = Math.ceil(24 / geo.width);
  box.style.left = `${left(slot)}px`;
  box.style.width = `${wide}px`;
  box.classList.toggle('te-after', slot >= geo.slots);
  index.hidden = slot % every !== 0;
  const first = firstFrame(value.grid, slot), last = first + framesIn(value.grid, slot, 1) - 1;
  write(frames, first === last ? String(first) : `${first}–${last}`);
  frames.hidden = wide < 68 && !(slot === 0 && geo.width >= 68);
}

/** Seconds at round times, as far apart as their words need. */
function drawRuler() {
  ruler.replaceChildren();
  const { fps, num_frames: frames } = value.grid;
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60].find(s => s * fps * perFrame() >= 56) ?? 120;
  for (let at = 0; at * fps < frames; at = round2(at + step)) {
    const x = leftOfFrame(at * fps);
    if (x > geo.total - 34 || (at > 0 && x < geo.zero)) continue;
    const tick = make('span', 'te-tick', ruler, `${number(at)} s`);
    tick.style.left = `${x}px`;
  }
}

// --- the curve ------------------------------------------------------------------------------------------------------

let drawnPath = '';

function drawCurve() {
  const parts = multipliers(value).map((noise, slot) => `V${height(noise).toFixed(1)}H${left(slot + 1).toFixed(1)}`);
  const path = `M0 ${parts[0].slice(1)}${parts.slice(1).join('')}`;
  if (path === drawnPath) return;
  drawnPath = path;
  line.setAttribute('d', path);
  area.setAttribute('d', `${path}V${height(0)}H0Z`);
}

let liveGeo = null;

/** The noise that each slot has at this step of a run, under the curve, where it is this timeline that runs. */
function drawLive() {
  const { noise = [], of = [] } = prop('live') ?? {};
  const mine = value && noise.length === slotsOf(value.grid) &&
    JSON.stringify(inTime(value.keyframes).map(k => [k.slot, ...k.noise])) === JSON.stringify(of);
  root.classList.toggle('te-runs', !!mine);
  if (!mine) return;
  const levels = noise.map((level, slot) => `${slot ? 'L' : 'M'}${left(slot).toFixed(1)} ${height(level).toFixed(1)}H${left(slot + 1).toFixed(1)}`);
  // It sinks smoothly from step to step, and not from one width of the page to another.
  live.style.transition = liveGeo === geo ? '' : 'none';
  liveGeo = geo;
  mark(live, 'd', `${levels.join('')}V${height(0)}H0Z`);
}

/** The bands of noise that are advised. */
function drawBands() {
  bands.replaceChildren();
  for (const { slot, low, high } of prop('advice')?.bands ?? []) {
    if (!(slot >= 0 && slot < geo.slots)) continue;
    const band = shape('rect', 'te-band', bands);
    const top = height(clamp(high, 0, 1));
    const tall = Math.max(2, height(clamp(low, 0, 1)) - top);
    const box = { x: left(slot) + 1, width: widthOf(slot) - 2, y: top, height: tall };
    for (const name in box) band.setAttribute(name, box[name]);
  }
}

function drawAxis() {
  axis.replaceChildren();
  make('span', 'te-axis-name', axis, say('noise_axis'));
  for (const noise of [1, 0.5, 0]) make('span', 'te-axis-mark', axis, number(noise)).style.top = `${height(noise)}px`;
}

// --- keyframes ------------------------------------------------------------------------------------------------------

const nodes = new Map();  // id -> { group, card, film, name, pictures, dots, bars, k, geo }

function drawKeys() {
  const there = new Set(value.keyframes.map(k => k.id));
  for (const [id, node] of nodes) {
    if (!there.has(id)) { node.group.remove(); nodes.delete(id); }
  }
  for (const k of value.keyframes) drawKey(k);
}

/** Tab goes through the keyframes in the order of time. Not in a drag: moving a node drops its focus. */
function orderKeys() {
  const focused = document.activeElement;
  let changed = false;
  inTime(value.keyframes).forEach((k, i) => {
    const { group } = nodes.get(k.id);
    if (keyLayer.children[i] !== group) { keyLayer.insertBefore(group, keyLayer.children[i]); changed = true; }
  });
  if (changed && focused && keyLayer.contains(focused)) focused.focus({ preventScroll: true });
}

function makeKey(k) {
  const group = make('div', 'te-key', keyLayer);
  group.dataset.id = k.id;
  make('div', 'te-landing', group);
  const card = make('div', 'te-card', group);
  card.tabIndex = 0;
  card.setAttribute('role', 'slider');
  card.setAttribute('aria-valuemin', 0);
  const film = make('div', 'te-film', card), name = make('span', 'te-card-name', card);
  const node = { group, card, film, name, pictures: new Map(), dots: [], bars: [], k: null };
  for (const end of ['left', 'right']) make('span', `te-edge te-edge-${end}`, card).dataset.end = end;
  nodes.set(k.id, node);
  return node;
}

function drawKey(k) {
  const node = nodes.get(k.id) ?? makeKey(k);
  const on = chosen.has(k.id);
  if (node.k === k && node.geo === geo && node.on === on && node.slots === geo.slots) return;
  const before = node.k;
  const placed = node.geo !== geo || before?.slot !== k.slot || before?.span !== k.span;
  if (placed) {
    node.group.style.transform = `translateX(${left(k.slot)}px)`;
    node.group.style.width = `${widthOf(k.slot, k.span)}px`;
  }
  if (placed || before?.thumbs !== k.thumbs || before?.start !== k.start) {
    drawFilm(node, k);
    drawName(node, k);
  }
  if (before?.fit !== k.fit || before?.focus !== k.focus) frameFilm(node, k);
  if (placed || before?.noise !== k.noise) drawHandles(node, k);
  if (node.on !== on) { node.group.classList.toggle('te-chosen', on); node.card.setAttribute('aria-current', on); }
  if (before?.kind !== k.kind) node.group.dataset.kind = k.kind;
  node.group.classList.toggle('te-after', endOf(k) > geo.slots);
  Object.assign(node, { k, geo, on, slots: geo.slots });
  mark(node.card, 'aria-label', say('keyframe_label', { name: k.name }));
  mark(node.card, 'aria-valuemax', geo.slots - 1);
  mark(node.card, 'aria-valuenow', k.slot);
  const text = keyframeText(value.grid, k);
  mark(node.card, 'aria-valuetext', text);
  node.card.title = `${k.name}\n${text}`;
}

/** Which thumbnails show the part of a source that is used, as many as there is room for. */
function filmIndexes(k, width) {
  const last = k.thumbs.length - 1;
  if (last < 1) return last < 0 ? [] : [0];
  const used = framesIn(value.grid, k.slot, k.span);
  const count = clamp(Math.round(width / TILE), 1, last + 1);
  const at = i => clamp(Math.round((k.start + (i + 0.5) / count * used) / Math.max(1, k.frames - 1) * last), 0, last);
  return [...new Set(Array.from({ length: count }, (_, i) => at(i)))];
}

/** A picture keeps the shape of the video, and its name stands beside it where there is room; a clip is a filmstrip. */
function drawName(node, k) {
  const shape = LANE * value.width / value.height;
  node.film.style.width = k.kind === 'image' ? `min(100%, ${shape.toFixed(1)}px)` : '100%';
  node.name.hidden = k.kind !== 'image' || widthOf(k.slot) < shape + 60;
  node.name.style.left = `${shape.toFixed(1)}px`;
  write(node.name, k.name);
}

/** A node per thumbnail, shown or hidden: decoding a picture anew in the middle of a drag would flicker. */
function drawFilm(node, k) {
  if (node.k?.thumbs !== k.thumbs) {
    node.film.replaceChildren();
    node.pictures.clear();
  }
  const shown = new Set(filmIndexes(k, widthOf(k.slot, k.span)));
  for (const i of shown) {
    if (node.pictures.has(i)) continue;
    const image = picture(node.film, k.thumbs[i]);
    image.style.order = i;
    node.pictures.set(i, image);
  }
  for (const [i, image] of node.pictures) if (image.hidden === shown.has(i)) image.hidden = !shown.has(i);
}

/** Show of the pictures what is kept of them. */
function frameFilm(node, k) {
  node.film.style.setProperty('--te-fit', k.fit === 'pad' ? 'contain' : 'cover');
  node.film.style.setProperty('--te-focus', k.focus.map(x => `${100 * x}%`).join(' '));
}

/** A handle per slot, and a bar between them that moves all. */
function drawHandles(node, k) {
  while (node.dots.length > k.span) { node.dots.pop().remove(); node.bars.pop().remove(); }
  while (node.dots.length < k.span) makeHandle(node);
  const origin = left(k.slot);
  const roomy = geo.width >= 34;
  node.group.classList.toggle('te-tight', !roomy);
  k.noise.forEach((noise, i) => {
    const slot = k.slot + i, x = left(slot) - origin, wide = widthOf(slot);
    const dot = node.dots[i], bar = node.bars[i], y = height(noise);
    bar.style.transform = `translate(${x}px, ${y}px)`;
    bar.style.width = `${wide}px`;
    dot.style.transform = `translate(${x + wide / 2}px, ${y}px)`;
    dot.style.setProperty('--te-reach', `${clamp(wide * (coarse.matches ? 0.8 : 0.6), 12, 32)}px`);
    dot.classList.toggle('te-high', noise > 0.86);  // no room for its number above
    write(dot.firstChild, number(noise));
    mark(dot, 'aria-label', say('handle_label', { name: k.name, slot }));
    mark(dot, 'aria-valuenow', number(noise));
    mark(dot, 'aria-valuetext', keyframeText(value.grid, { ...k, slot, span: 1, noise: [noise] }));
  });
}

function makeHandle(node) {
  const bar = make('div', 'te-level', node.group);
  const dot = make('div', 'te-dot', node.group);
  make('span', 'te-dot-text', dot);
  bar.dataset.index = dot.dataset.index = node.dots.length;
  // One stop for Tab per keyframe; the arrows go from handle to handle. A long clip must not be a long way.
  dot.tabIndex = node.dots.length ? -1 : 0;
  dot.setAttribute('role', 'slider');
  dot.setAttribute('aria-orientation', 'vertical');
  dot.setAttribute('aria-valuemin', 0);
  dot.setAttribute('aria-valuemax', 1);
  node.bars.push(bar);
  node.dots.push(dot);
}

// --- the rest of the picture ----------------------------------------------------------------------------------------

/** Which slot is chosen, and what the slots say of themselves. One of them is a stop for Tab. */
function drawSlots() {
  const stop = cursor ?? 0, taken = takenSlots(value);
  cells.forEach(({ box }, slot) => {
    const on = slot === cursor;
    if (box.classList.contains('te-chosen') !== on) box.classList.toggle('te-chosen', on);
    if (box.tabIndex !== (slot === stop ? 0 : -1)) box.tabIndex = slot === stop ? 0 : -1;
    mark(box, 'aria-pressed', on);
    const state = say(slot >= geo.slots ? 'slot_after_end' : taken[slot] ? 'slot_taken' : 'slot_free');
    const text = `${say('slot_text', { slot, frames: framesText(value.grid, slot, 1) })}: ${state}`;
    mark(box, 'aria-label', text);
    mark(box, 'title', text);
  });
}

function drawFacts() {
  const { num_frames: frames, fps } = value.grid;
  const seconds = (frames / fps).toFixed(1);
  write(facts, say('facts', { frames, slots: geo.slots, seconds, fps: number(fps) }));
}

/** What the finished video consists of, in proportion to the frames. */
function drawResult() {
  resultBar.replaceChildren();
  const parts = (prop('result') ?? []).filter(part => part.frames > 0);
  resultBar.hidden = !parts.length;
  for (const { kind, frames, title } of parts) {
    const part = make('div', `te-part te-part-${kind === 'kept' ? 'kept' : 'made'}`, resultBar);
    part.style.flexGrow = frames;
    part.title = `${title}: ${say('part_frames', { frames })}`;
    make('span', 'te-part-title', part, title);
    make('span', 'te-part-frames', part, String(frames));
  }
}

function drawAdvice() {
  under.replaceChildren();
  const stray = value.keyframes.filter(k => endOf(k) > geo.slots).length;
  if (prop('advice')?.text) make('p', 'te-advice', under, prop('advice').text);
  for (const text of [...(prop('advice')?.warnings ?? []), ...(stray ? [say('stray', { count: stray })] : [])]) {
    make('p', 'te-warning', under, text).setAttribute('role', 'status');
  }
  drawBands();
}

/** Everything that a drag can change. */
function drawMoving() {
  drawKeys();
  drawCurve();
  drawLive();
  refreshInspector();
}

/** Everything, as far as it changed. */
function draw() {
  for (const part of [body, tools, under, inspector]) part.hidden = !value;
  if (!value) { write(facts, say('empty')); return; }
  layOut();
  drawGrid();
  drawSlots();
  drawMoving();
  orderKeys();
  drawFacts();
  drawAdvice();
  drawInspector();
  drawBar();
}

function tell(text) {
  write(noticeLine, text ?? '');
  noticeLine.hidden = !text;
}

function complain(text) {
  // An alert that says the same again is read out only when it was empty in between.
  alertLine.textContent = '';
  alertLine.textContent = text ?? '';
  alertLine.hidden = !text;
}
