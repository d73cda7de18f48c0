// What is chosen, in numbers: a slot, one keyframe or several. Built anew when something else is chosen, else refreshed.

let inspected = '';   // what the inspector was built for
let fields = [];      // functions that write the present values into its controls
let asked = null;     // the shape of the noise that the user asked for: a ramp whose ends meet stays a ramp
const SHAPES = ['constant', 'rising', 'falling', 'list'];

const keysOf = ids => inTime(value.keyframes.filter(k => ids.has(k.id)));
const chosenKeys = () => keysOf(chosen);
const only = (ids = chosen) => { const keys = keysOf(ids); return keys.length === 1 ? keys[0] : null; };
const totalSpan = keys => keys.reduce((sum, k) => sum + k.span, 0);

function drawInspector() {
  const keys = chosenKeys();
  const what = JSON.stringify([keys.map(k => [k.id, k.kind, k.span > 1, k.file.path]), keys.length ? null : cursor,
    atCursor()?.id, prop('readonly'), geo.slots, several, value.keyframes.length > 1, currentShape(keys)]);
  if (what === inspected && inspector.childNodes.length) { refreshInspector(); return; }
  // A control that rebuilds its own inspector keeps the focus, by its name.
  const name = inspector.contains(document.activeElement) ? document.activeElement.dataset.name : null;
  inspected = what;
  fields = [];
  inspector.replaceChildren();
  if (keys.length === 1) inspectKeyframe(keys[0]);
  else if (keys.length) inspectSeveral(keys);
  else inspectSlot();
  if (prop('readonly')) inspector.querySelectorAll('input, button, [tabindex]').forEach(disable);
  refreshInspector();
  if (name) inspector.querySelector(`[data-name="${name}"]`)?.focus({ preventScroll: true });
}

const disable = control => { control.disabled = true; control.removeAttribute('tabindex'); };
const refreshInspector = () => { for (const refresh of fields) refresh(); };

function inspectSlot() {
  if (cursor === null || cursor >= geo.slots) { make('p', 'te-hint', inspector, say('hint')); return; }
  const frames = framesText(value.grid, cursor, 1), k = atCursor();
  if (k) {
    make('p', 'te-hint', inspector, say('taken_slot', { slot: cursor, frames, name: k.name }));
    button('te-choose-it', inspector, { text: say('choose_it'), press: () => goTo(k.id) });
    return;
  }
  make('p', 'te-hint', inspector, say('free_slot', { slot: cursor, frames }));
  if (!prop('readonly')) button('te-add-here', inspector, { text: say('add_here'), press: () => chooseFiles() });
}

/** The keyframe in the chosen slot, if there is one. */
const atCursor = () => cursor === null ? undefined : value.keyframes.find(k => k.slot <= cursor && cursor < endOf(k));

/** Choose a keyframe and go there. */
function goTo(id) {
  choose([id]);
  nodes.get(id).card.focus({ preventScroll: true });
}

function inspectKeyframe(k) {
  const side = make('div', 'te-side', inspector);
  focusPicker(side, k);
  const main = make('div', 'te-main', inspector);
  const head = make('div', 'te-head', main);
  make('span', 'te-name', head, k.name).title = k.name;
  make('span', 'te-kind', head, k.kind === 'image' ? say('image') : say('clip', { frames: k.frames }));
  const where = make('span', 'te-where', head);
  fields.push(() => { const now = only(); if (now) write(where, keyframeText(value.grid, now)); });
  actions(head, true);
  const row = make('div', 'te-fields', main);
  numberField(row, 'slot', { least: () => 0, most: () => geo.slots - 1, get: now => now.slot, set: moveToSlot });
  if (k.kind === 'clip') {
    numberField(row, 'span', { least: () => 1, most: () => geo.slots, get: now => now.span, set: setSpan });
    numberField(row, 'start', { least: () => 0, most: mostStart, get: now => now.start, set: setStart });
  }
  fitField(row);
  noiseFields(row, [k]);
  if (k.kind === 'clip') trimStrip(main, k);
}

function inspectSeveral(keys) {
  const main = make('div', 'te-main', inspector);
  const head = make('div', 'te-head', main);
  const text = make('span', 'te-name', head);
  fields.push(() => {
    const now = chosenKeys();
    write(text, say('several', { count: now.length, slots: totalSpan(now) }));
  });
  actions(head, false);
  noiseFields(make('div', 'te-fields', main), keys);
}

function actions(parent, single) {
  const row = make('div', 'te-actions', parent);
  if (single) button('te-replace', row, { text: say('replace'), press: () => chooseFiles(only()?.id) });
  if (value.keyframes.length > 1) {
    const press = () => choose([...chosen], null, !several);
    const more = button('te-several', row, { text: say('choose_several'), press });
    more.dataset.name = 'several';
    more.setAttribute('aria-pressed', several);
  }
  button('te-duplicate', row, { text: say('duplicate'), press: duplicate });
  button('te-delete', row, { text: say('delete'), press: remove });
}

// --- controls -------------------------------------------------------------------------------------------------------

function labelled(parent, name, text) {
  const label = make('label', `te-field te-field-${name}`, parent);
  make('span', 'te-label', label, text);
  return label;
}

function textInput(parent, name, type) {
  const input = make('input', 'te-input', parent);
  input.type = type;
  input.dataset.name = name;
  input.autocomplete = 'off';
  return input;
}

/** Write into a control, but not under the hands of somebody who types in it. */
function refill(input, text) {
  if (input.dataset.dirty !== 'yes' && input.value !== text) input.value = text;
  if (input.dataset.dirty !== 'yes') input.dataset.shown = text;
}

const isTyped = input => inspector.contains(input) && input.dataset.dirty === 'yes';

/** Take what is being typed, before something else is chosen and its field goes. */
function enterTyped() {
  if (isTyped(document.activeElement)) document.activeElement.dispatchEvent(new Event('change'));
}

/** What was typed counts when it is complete: Enter, a press of the arrows, or going elsewhere. */
function onEntered(input, accept) {
  const enter = () => {
    if (input.dataset.dirty !== 'yes') return;
    input.dataset.dirty = 'no';
    accept(input.value);
    refreshInspector();
  };
  input.addEventListener('input', () => { input.dataset.dirty = 'yes'; });
  input.addEventListener('change', enter);
  input.addEventListener('keydown', event => { if (event.key === 'Enter') { event.preventDefault(); enter(); } });
}

function numberField(parent, name, { least, most, get, set, step = 1, text = say(name) }) {
  const input = textInput(labelled(parent, name, text), name, 'number'), mine = chosen;
  input.step = step;
  onEntered(input, typed => {
    const x = typed.trim() === '' ? NaN : Number(typed), now = only(mine);
    if (!now || !Number.isFinite(x)) return;
    set(now, clamp(step === 1 ? Math.round(x) : round2(x), least(now), most(now)));
  });
  fields.push(() => {
    const now = only();
    if (!now) return;
    mark(input, 'min', least(now));
    mark(input, 'max', most(now));
    refill(input, number(get(now)));
  });
}

/** A row of exclusive buttons under a label. */
function segments(parent, name, label, choices, get, set) {
  make('span', 'te-label', parent, label);
  const group = make('span', 'te-segments', parent);
  group.setAttribute('role', 'radiogroup');
  group.setAttribute('aria-label', label);
  const all = choices.map(([id, text, title]) => {
    const node = make('button', 'te-segment', group, text);
    node.type = 'button';
    node.dataset.name = `${name}-${id}`;
    if (title) node.title = title;
    node.setAttribute('role', 'radio');
    node.addEventListener('click', () => set(id));
    node.addEventListener('keydown', event => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      const next = choices[(choices.findIndex(c => c[0] === id) + by + choices.length) % choices.length][0];
      set(next);
      inspector.querySelector(`[data-name="${name}-${next}"]`)?.focus();
    });
    return [id, node];
  });
  fields.push(() => {
    const now = get();
    for (const [id, node] of all) { mark(node, 'aria-checked', id === now); node.tabIndex = id === now ? 0 : -1; }
  });
}

function fitField(parent) {
  const box = make('div', 'te-field te-field-fit', parent);
  const choices = [['crop', say('crop'), say('crop_title')], ['pad', say('pad'), say('pad_title')]];
  segments(box, 'fit', say('fit_mode'), choices, () => only()?.fit, fit => change(replaced(value, { ...only(), fit })));
}

// --- what the numbers do --------------------------------------------------------------------------------------------

function moveToSlot(k, slot) {
  const next = moved(value, new Set([k.id]), slot - k.slot);
  const landed = next.keyframes.find(x => x.id === k.id).slot;
  change(next);
  complain(landed === slot ? '' : say('next_to'));
}

function setSpan(k, span) {
  const [next, reason] = rightEndAt(value, k, k.slot + span - 1);
  change(next);
  complain(reason ? say(reason, k) : '');
}

const mostStart = k => Math.max(0, k.frames - framesIn(value.grid, k.slot, k.span));
const setStart = (k, start) => change(replaced(value, { ...k, start: clamp(start, 0, mostStart(k)) }), 'start');

// --- noise ----------------------------------------------------------------------------------------------------------

/** What the noises of the chosen keyframes look like. */
function shapeOf(keys) {
  const noise = keys.flatMap(k => k.noise);
  if (noise.every(x => x === noise[0])) return 'constant';
  const [from, to] = [noise[0], noise.at(-1)];
  if (!ramp(from, to, noise.length).every((x, i) => Math.abs(x - noise[i]) < 0.0051)) return 'list';
  return to > from ? 'rising' : 'falling';
}

function currentShape(keys) {
  if (!keys.length) return null;
  const shape = shapeOf(keys);
  return asked === 'list' || (asked && shape === 'constant') ? asked : shape;
}

function noiseFields(parent, keys) {
  if (totalSpan(keys) === 1) {
    numberField(parent, 'noise', {
      least: () => 0, most: () => 1, step: 0.05, get: k => k.noise[0],
      set: (k, x) => change(replaced(value, { ...k, noise: [x] })),
    });
    return;
  }
  const box = make('div', 'te-field te-field-shape', parent);
  const shapes = SHAPES.map(name => [name, say(name)]);
  segments(box, 'shape', say('noise'), shapes, () => currentShape(chosenKeys()), chooseShape);
  const name = currentShape(keys);
  if (name === 'list') listField(parent);
  else for (const end of name === 'constant' ? ['level'] : ['from', 'to']) rampField(parent, end);
}

function chooseShape(name) {
  const keys = chosenKeys(), noise = keys.flatMap(k => k.noise), count = noise.length;
  asked = name;
  let low = Math.min(...noise), high = Math.max(...noise);
  // A ramp between equal ends would be no ramp.
  if (low === high) [low, high] = low >= 0.5 ? [round2(low - 0.4), low] : [low, round2(low + 0.4)];
  const numbers = {
    constant: () => ramp(noise[0], noise[0], count),
    rising: () => ramp(low, high, count),
    falling: () => ramp(high, low, count),
    list: () => noise,
  }[name]();
  if (!change(withNoises(value, keys, numbers))) draw();
}

/** One end of a ramp, or the level of a constant noise. */
function rampField(parent, name) {
  const input = textInput(labelled(parent, name, say(name)), name, 'number'), mine = chosen;
  Object.assign(input, { min: 0, max: 1, step: 0.05 });
  const ends = () => {
    const noise = keysOf(mine).flatMap(k => k.noise);
    return [noise[0], noise.at(-1), noise.length];
  };
  onEntered(input, typed => {
    const x = Number(typed), keys = keysOf(mine);
    if (typed.trim() === '' || !Number.isFinite(x) || !keys.length) return;
    asked = currentShape(keys);
    const [from, to, count] = ends(), level = round2(clamp(x, 0, 1));
    const [first, last] = { level: [level, level], from: [level, to], to: [from, level] }[name];
    change(withNoises(value, keys, ramp(first, last, count)), `noise-${name}`);
  });
  fields.push(() => {
    const [from, to, count] = ends();
    if (count) refill(input, number(name === 'to' ? to : from));
  });
}

function listField(parent) {
  const label = labelled(parent, 'values', say('values'));
  const input = textInput(label, 'values', 'text'), mine = chosen;
  input.inputMode = 'decimal';
  onEntered(input, typed => {
    const keys = keysOf(mine), count = totalSpan(keys);
    const parts = typed.split(/[,;\s]+/).filter(Boolean), numbers = parts.map(Number);
    const good = numbers.length === count && numbers.every(x => x >= 0 && x <= 1);
    complain(good ? '' : say('values_wrong', { count }));
    if (good) change(withNoises(value, keys, numbers.map(round2)));
  });
  fields.push(() => refill(input, chosenKeys().flatMap(k => k.noise).map(number).join(', ')));
}

// --- the picture: what of it is kept --------------------------------------------------------------------------------

/** The picture with the frame that is cut out of it. */
function focusPicker(parent, k) {
  const box = make('div', 'te-focus', parent);
  const image = picture(box, k.kind === 'image' ? k.file.url || k.thumbs[0] : k.thumbs[thumbAtStart(k)]);
  // Browsers cannot show every kind of picture that the program reads (TIFF).
  image.addEventListener('error', () => { image.src = safeAddress(k.thumbs[0]); }, { once: true });
  const frame = make('div', 'te-frame', box);
  box.dataset.name = 'focus';
  box.tabIndex = 0;
  box.setAttribute('role', 'group');
  const shown = () => [image.naturalWidth || 1, image.naturalHeight || 1];
  const refresh = () => {
    const now = only();
    if (!now) return;
    const still = now.kind === 'clip' ? safeAddress(now.thumbs[thumbAtStart(now)]) : '';
    if (still && image.src !== still) image.src = still;
    const [x, y, w, h] = cropBox(shown(), now);
    Object.assign(frame.style, { left: `${x}%`, top: `${y}%`, width: `${w}%`, height: `${h}%` });
    frame.hidden = now.fit === 'pad';
    const words = say('focus', { x: Math.round(100 * now.focus[0]), y: Math.round(100 * now.focus[1]) });
    mark(box, 'aria-label', words);
    mark(box, 'title', words);
  };
  image.addEventListener('load', refresh);
  fields.push(refresh);
  if (!prop('readonly')) { dragFocus(box, shown); keysOfFocus(box); }
}

function thumbAtStart(k) {
  const last = k.thumbs.length - 1;
  return Math.min(last, Math.round(k.start / Math.max(1, k.frames - 1) * last));
}

/** What is cut out of a picture of that size, in percent: left, top, width, height. As media.fit.crop_box. */
function cropBox([width, height], k) {
  const scale = Math.min(width / value.width, height / value.height);
  const w = 100 * scale * value.width / width, h = 100 * scale * value.height / height;
  return [(100 - w) * k.focus[0], (100 - h) * k.focus[1], w, h];
}

/** The focus at which the middle of what is kept is where the pointer is. */
function dragFocus(box, shown) {
  const begin = () => only()?.fit === 'crop' ? { k: only(), rect: box.firstChild.getBoundingClientRect() } : null;
  draggable(box, begin, (event, { k, rect }) => {
    const [, , w, h] = cropBox(shown(), k);
    const part = (at, size) => size > 99.9 ? 0.5 : round2(clamp((100 * at - size / 2) / (100 - size), 0, 1));
    const x = part((event.clientX - rect.left) / rect.width, w), y = part((event.clientY - rect.top) / rect.height, h);
    return replaced(value, { ...k, focus: [x, y] });
  });
}

function keysOfFocus(box) {
  box.addEventListener('keydown', event => {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key], now = only();
    if (!by || !now || now.fit !== 'crop') return;
    event.preventDefault();
    event.stopPropagation();
    const focus = now.focus.map((x, i) => round2(clamp(x + 0.05 * by[i], 0, 1)));
    change(replaced(value, { ...now, focus }), 'focus');
  });
}

// --- a clip's own length, and the part of it that is used -----------------------------------------------------------

function trimStrip(parent, k) {
  const strip = make('div', 'te-trim', parent);
  strip.title = say('trim');
  const film = make('div', 'te-trim-film', strip);
  for (const thumb of k.thumbs) picture(film, thumb);
  const range = make('div', 'te-trim-window', strip);
  const text = make('div', 'te-trim-text', parent);
  fields.push(() => {
    const now = only();
    if (!now) return;
    const used = Math.min(framesIn(value.grid, now.slot, now.span), now.frames - now.start);
    range.style.left = `${100 * now.start / now.frames}%`;
    range.style.width = `${100 * used / now.frames}%`;
    write(text, say('trim_text', { first: now.start, last: now.start + used - 1, frames: now.frames }));
  });
  if (!prop('readonly')) dragTrim(strip);
}

/** Drag the window, or press where its middle should be. */
function dragTrim(strip) {
  const begin = event => {
    const k = only(), rect = strip.getBoundingClientRect(), used = framesIn(value.grid, k.slot, k.span);
    const pressed = (event.clientX - rect.left) / rect.width * k.frames;
    const inside = pressed >= k.start && pressed <= k.start + used;
    return { k, x: event.clientX, width: rect.width, start: inside ? k.start : pressed - used / 2 };
  };
  draggable(strip, begin, (event, { k, x, width, start }) => {
    const to = Math.round(start + (event.clientX - x) / width * k.frames);
    return replaced(value, { ...k, start: clamp(to, 0, mostStart(k)) });
  });
}

// --- dragging in the inspector --------------------------------------------------------------------------------------

let abandon = null;  // puts back what a drag in the inspector has done so far

/** `begin(event)` gives what a move has to know, or null; `follow(event, that)` the value as it is then. */
function draggable(node, begin, follow) {
  let grip = null, before = null;
  const end = keep => {
    if (!grip) return;
    const next = value;
    value = before;
    grip = abandon = null;
    if (!keep || !change(next)) draw();
    rested();
  };
  const to = event => { value = follow(event, grip); drawMoving(); };
  node.addEventListener('pointerdown', event => {
    if (event.button || dragging() || !only()) return;
    enterTyped();
    grip = begin(event);
    if (!grip) return;
    event.preventDefault();
    node.focus({ preventScroll: true });
    before = value;
    abandon = () => end(false);
    node.setPointerCapture(event.pointerId);
    to(event);
  });
  node.addEventListener('pointermove', event => { if (grip) to(event); });
  node.addEventListener('pointerup', () => end(true));
  for (const name of ['pointercancel', 'lostpointercapture']) node.addEventListener(name, () => end(false));
}
