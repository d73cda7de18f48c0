// Files: added, replaced, saved and loaded.

const MAX_IMAGE = 4_000_000, MAX_CLIP = 8_000_000, MAX_SAVED = 200_000_000;  // bytes; what goes into a saved timeline
const FORMAT = 1;
const MAX_REASONS = 3;    // sentences on why files were not added
const MAX_WAIT = 60_000;  // milliseconds for an answer of the page

const picker = make('input', 'te-file', root);
picker.type = 'file';
picker.hidden = true;
picker.tabIndex = -1;
const waiting = make('div', 'te-waiting', root);
waiting.setAttribute('role', 'status');
let pickedFor = null;  // the id of the keyframe whose file is to be replaced

/** Ask for files: for new keyframes, or for one in place of a keyframe's. */
function chooseFiles(replace = null) {
  if (!replace && freeSlot(value, 0) === null) { complain(say('full')); return; }
  pickedFor = replace;
  picker.accept = 'image/*,video/*';
  picker.multiple = !replace;
  picker.click();
}

function chooseSaved() {
  pickedFor = 'saved';
  picker.accept = '.json,application/json';
  picker.multiple = false;
  picker.click();
}

picker.addEventListener('change', async () => {
  const files = [...picker.files], wanted = pickedFor;
  picker.value = '';
  if (!files.length) return;
  if (wanted === 'saved') await attempt(() => loadSaved(files[0]));
  else if (wanted) await attempt(() => replaceFile(wanted, files[0]));
  else await addFiles(files);
});

/** Something that cannot be done, in a sentence. */
class Unusable extends Error {}

/** Do what may turn out to be `Unusable`, and say so. */
async function attempt(work) {
  complain('');
  try { await work(); } catch (error) {
    if (!(error instanceof Unusable)) throw error;
    complain(error.message);
  }
}

/** Where the next keyframe goes: the chosen slot, else behind what is chosen, else the first free one. */
function nextSlot() {
  const last = chosenKeys().at(-1);
  return clamp(cursor ?? (last ? endOf(last) : 0), 0, geo.slots - 1);
}

/** One file after the other; those that cannot be added are told at the end, and keep none of the others out. */
async function addFiles(files, slot = nextSlot()) {
  complain('');
  const lost = [];
  for (const file of files) {
    try {
      if (isSaved(file)) await loadSaved(file);
      else slot = endOf(await addFile(file, slot));
    } catch (error) {
      if (!(error instanceof Unusable)) throw error;
      lost.push([file.name, error.message]);
    }
  }
  if (!lost.length) return;
  const why = [...new Set(lost.map(([, reason]) => reason))].slice(0, MAX_REASONS).join(' ');
  const names = lost.map(([name]) => name).join(', ');
  complain(files.length === 1 ? why : `${say('not_added', { names })} ${why}`);
}

const isSaved = file => file.type === 'application/json' || file.name.toLowerCase().endsWith('.json');

async function addFile(file, slot) {
  const at = freeSlot(value, Math.min(slot, slotsOf(value.grid) - 1));
  if (at === null) throw new Unusable(say('full'));
  const source = await bring(file, at), most = Math.ceil(slotsOf(value.grid) / 2);
  return add(source, at, { most });
}

/** A new keyframe of a source in the nearest free slots, as many as it fills up to `most`. Without `noise` it gets what
 *  the model advises. */
function add(source, wanted, { most, noise }) {
  const slot = freeSlot(value, wanted) ?? wanted;
  const k = { id: newId(), slot, span: 1, start: 0, fit: 'crop', focus: [0.5, 0.5], ...source };
  k.span = Math.min(most, fillingSpan(value, k, slot));
  k.noise = Array(k.span).fill(0);
  const [next, reason] = inserted(value, k, slot);
  if (!next) throw new Unusable(say(reason, { ...k, stride: value.grid.temporal_stride }));
  const placed = next.keyframes.at(-1);
  placed.noise.fill(clamp(noise ?? newNoise(placed), 0, 1));
  // It may come at any time, and whoever types in the inspector or chooses several goes on with that.
  const busy = several || isTyped(document.activeElement);
  if (!busy) take([k.id]);
  change(next);
  if (!busy) nodes.get(k.id).card.focus({ preventScroll: true });
  return placed;
}

/** The noise of a new keyframe: one number for all, or for pictures by their place. A clip has its own motion and needs
 *  no more freedom than the first picture. */
function newNoise(k) {
  const noise = prop('new_noise');
  if (typeof noise !== 'object') return Number(noise) || 0;
  const place = k.slot === 0 || k.kind === 'clip' ? 'first' : endOf(k) < slotsOf(value.grid) ? 'middle' : 'last';
  return Number(noise?.[place]) || 0;
}

async function replaceFile(id, file) {
  const source = await bring(file, value.keyframes.find(k => k.id === id)?.slot);
  const old = value.keyframes.find(k => k.id === id);
  if (!old) return;
  const wide = { ...old, ...source, start: 0, begin: 0, end: null, span: source.kind === 'image' ? 1 : old.span };
  const span = Math.min(wide.span, longestSpan(value.grid, wide, old.slot));
  if (span < 1) throw new Unusable(say('too_short', { ...source, stride: value.grid.temporal_stride }));
  change(replaced(value, { ...wide, span, noise: resized(old.noise, span) }));
}

/** Upload a file and ask what it is: what a keyframe needs of its source. */
async function bring(file, slot) {
  const name = file.name || 'picture.png';
  const done = wait(say('uploading', { name }), slot);
  try {
    if (file.type && !/^(image|video)\//.test(file.type)) throw new Unusable(say('not_media', { name }));
    let stored;
    try { stored = await upload(file); } catch { throw new Unusable(say('upload_failed', { name })); }
    return await forPresent(grid => describeFile({ ...stored, name, type: file.type, size: file.size }, grid));
  } finally { done(); }
}

/** What `find` finds out for the timeline's grid, once nothing is dragged; anew when the model changed meanwhile. */
async function forPresent(find) {
  for (;;) {
    const grid = value.grid, found = await find(grid);
    await rest();
    if (sameClock(grid, value.grid)) return found;
  }
}

async function describeFile({ path, url, name, type, size }, grid) {
  const about = await ask(path, grid);
  if (!about || about.problem) throw new Unusable(about?.problem ?? say('unreadable', { name }));
  return sourceOf(about, { path, url, name, type, size });
}

/** What a keyframe holds of its source: what it is, and the file as Gradio's FileData. */
function sourceOf({ kind, frames, thumbs }, { path, url, name, type = null, size = null }) {
  const file = { path, url, orig_name: name, mime_type: type || null, size, is_stream: false };
  return { kind, frames, thumbs, name: name.slice(0, 255), file: { ...file, meta: { _type: 'gradio.FileData' } } };
}

async function ask(path, { fps }) {
  try { return await server.describe(path, fps); } catch { return null; }
}

/** Say what is going on, in words and at a slot, until the function that is returned is called. */
function wait(text, slot) {
  const note = make('span', 'te-wait', waiting, text);
  const box = cells[slot]?.box;
  box?.classList.add('te-pending');
  root.setAttribute('aria-busy', 'true');
  return () => {
    note.remove();
    box?.classList.remove('te-pending');
    if (!waiting.childNodes.length) root.removeAttribute('aria-busy');
  };
}

// --- what the page holds --------------------------------------------------------------------------------------------

const orders = [];  // what was asked for and did not come yet

// One at a time: of two answers that come at once, only the later would be seen.
/** Ask for what the page holds: the player's frame, an entry of the library. */
function order(name, data, text) {
  orders.push({ name, data: { ...data, order: newId() }, done: wait(text, data.slot) });
  if (orders.length === 1) sendOrder();
}

function sendOrder() {
  const [first] = orders;
  first.late = setTimeout(() => { endOrder(first); complain(say('no_answer')); }, MAX_WAIT);
  trigger(first.name, first.data);
}

function endOrder(one) {
  clearTimeout(one.late);
  one.done();
  orders.splice(orders.indexOf(one), 1);
  if (orders.length) sendOrder();
}

/** What was asked for: a file, and where it goes. It is put on the timeline as that is now. */
async function receive() {
  const { order: id, path, name, slot, noise } = prop('placed') ?? {};
  const mine = orders.find(one => one.data.order === id);
  try {
    if (path && value) {
      await attempt(async () => {
        const source = await forPresent(grid => describeFile({ path, name, url: addressOf(path) }, grid));
        add(source, clamp(slot, 0, slotsOf(value.grid) - 1), { most: Infinity, noise });
      });
    } else if (id) tell(prop('notice'));  // why there is none; it may be the same again
  } finally { if (mine) endOrder(mine); }
}

// --- dropping -------------------------------------------------------------------------------------------------------

let dropRect = null, dropSlot = null;

const hasFiles = event => value && !prop('readonly') && [...event.dataTransfer.types].includes('Files');

function markDrop(slot) {
  cells[dropSlot]?.box.classList.remove('te-drop');
  dropSlot = slot;
  cells[dropSlot]?.box.classList.add('te-drop');
}

root.addEventListener('dragenter', event => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  dropRect = tracks.getBoundingClientRect();
});
root.addEventListener('dragover', event => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = 'copy';
  dropRect ??= tracks.getBoundingClientRect();
  root.classList.add('te-dropping');
  const inside = event.clientY >= dropRect.top && event.clientY <= dropRect.bottom;
  markDrop(inside ? freeSlot(value, Math.min(slotAt(event.clientX - dropRect.left), geo.slots - 1)) : null);
});
root.addEventListener('dragleave', event => { if (!root.contains(event.relatedTarget)) endDrop(); });
root.addEventListener('drop', event => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  event.stopPropagation();
  const slot = dropSlot;
  endDrop();
  addFiles([...event.dataTransfer.files], slot ?? nextSlot());
});

function endDrop() {
  markDrop(null);
  dropRect = null;
  root.classList.remove('te-dropping');
}

// --- saving ---------------------------------------------------------------------------------------------------------

/** The timeline with its files as data URLs, as far as they are not too large, offered as a download. */
async function save() {
  const files = {}, large = [];
  const keyframes = await Promise.all(inTime(value.keyframes).map(async ({ id, thumbs, file, frames, ...k }) => {
    const data = await embedded(file, k.kind === 'image' ? MAX_IMAGE : MAX_CLIP);
    if (data) files[file.path] = data;
    else large.push(k.name);
    return { ...k, file: file.path };
  }));
  const saved = { pusa_timeline: FORMAT, grid: value.grid, width: value.width, height: value.height, keyframes, files };
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify(saved)], { type: 'application/json' }));
  link.download = 'timeline.json';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  tell(large.length ? say('not_saved', { names: large.join(', ') }) : '');
}

async function embedded(file, most) {
  const address = safeAddress(file.url);
  if (!address) return null;
  try {
    const answer = await fetch(address);
    const blob = answer.ok ? await answer.blob() : null;
    if (!blob || blob.size > most) return null;
    return await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = reject;
      reader.readAsDataURL(blob);
    });
  } catch { return null; }
}

// --- loading --------------------------------------------------------------------------------------------------------

/** Put a saved timeline in the place of this one; an error, and no change, when anything is wrong with it. */
async function loadSaved(file) {
  const { name } = file, done = wait(say('uploading', { name }));
  try {
    const saved = await readSaved(file);
    const { slots, keyframes, notes } = await forPresent(grid => savedOn(grid, saved, name));
    take([]);
    // How frames fall into slots is the model's matter; the file says how many slots there are, or how long they last.
    change({ ...value, grid: { ...value.grid, num_frames: framesForSlots(value.grid, slots) }, keyframes });
    tell([say('loaded', { name }), ...notes].join(' '));
  } catch (error) {
    throw error instanceof Unusable ? error : new Unusable(say('bad_file', { name }));
  } finally { done(); }
}

/** What a saved timeline holds, with its files on this server. */
async function readSaved(file) {
  const { name } = file;
  if (file.size > MAX_SAVED) throw new Unusable(say('file_too_large', { name }));
  const { pusa_timeline: format, grid = {}, keyframes, files = {} } = JSON.parse(await file.text()) ?? {};
  const slots = slotsOf(grid);
  const good = format === FORMAT && Array.isArray(keyframes) && Number.isInteger(slots) && slots >= 1;
  if (!good) throw new Unusable(say('bad_file', { name }));
  const stored = [];
  for (const [i, entry] of keyframes.entries()) {
    if (!isEntry(entry)) throw new Unusable(say('bad_entry', { count: i + 1, name }));
    stored.push(await savedFile(entry, files));
  }
  return { grid, keyframes, stored };
}

/** A saved timeline on a grid of this model: as it is where both have the same clock, else at the same seconds. */
async function savedOn(grid, saved, name) {
  const most = prop('slots_max') || Infinity, there = slotsOf(saved.grid);
  const other = Number.isFinite(saved.grid.fps) && !sameClock(saved.grid, grid);
  if (!other && there > most) throw new Unusable(say('bad_slots', { name, slots: there, most }));
  const long = other ? slotsLike(grid, saved.grid) : there, slots = Math.min(most, long);
  const sources = [];
  for (const one of saved.stored) sources.push(await savedSource(one, grid, name));
  const wrong = i => new Unusable(say('bad_entry', { count: i + 1, name }));
  const keyframes = saved.keyframes.map((entry, i) => {
    const { slot, span, noise, start = 0, begin = 0, end = null, fit, focus, kind } = entry;
    if (sources[i].kind !== kind) throw wrong(i);
    return { id: newId(), slot, span, noise, start, begin, end, fit, focus, ...sources[i] };
  });
  const to = { ...grid, num_frames: framesForSlots(grid, slots) };
  if (other) {
    const [fitted, notes] = await refitted(keyframes, saved.grid, to);
    return { slots, keyframes: fitted, notes: [say(slots < long ? 'shortened' : 'refitted', { slots }), ...notes] };
  }
  keyframes.forEach((k, i) => {
    const taken = takenSlots({ grid: to, keyframes: keyframes.slice(0, i) });
    if (endOf(k) > slots || longestSpan(to, k, k.slot) < k.span || !isFree(taken, k)) throw wrong(i);
  });
  return { slots, keyframes, notes: [] };
}

/** Keyframes of another grid on this one, and sentences on what had to move. Python does it, as for another model. */
async function refitted(keyframes, from, to) {
  const numbers = keyframes.map(({ slot, span, noise, kind, start, begin = 0, end = null }) =>
    ({ slot, span, noise, kind, start, begin, end }));
  let answer = null;
  try { answer = await server.refit(from, to, numbers); } catch { /* told below */ }
  if (!answer || answer.problem) throw new Unusable(answer?.problem ?? say('no_answer'));
  const fitted = [], notes = [...answer.notes];
  for (const [i, here] of answer.keyframes.entries()) {
    // Decoding rounds the end of a clip in its own way: a frame may be missing there.
    const k = here && placedAt(to, { ...keyframes[i], ...here }, here.slot);
    if (k) fitted.push(k);
    else if (here) notes.push(say('too_short', { ...keyframes[i], stride: to.temporal_stride }));
  }
  return [fitted, notes];
}

/** Keyframes with what their files are at the rate of a grid. */
async function described(keyframes, grid) {
  const all = [];
  for (const k of keyframes) {
    const { frames, thumbs } = await describeFile({ ...k.file, name: k.name }, grid);
    all.push({ ...k, frames, thumbs });
  }
  return all;
}

const isUnit = x => typeof x === 'number' && x >= 0 && x <= 1;
const isCount = (x, least) => Number.isInteger(x) && x >= least;

function isEntry(k) {
  return k && isCount(k.slot, 0) && isCount(k.span, 1) && isCount(k.start ?? 0, 0) && isCount(k.begin ?? 0, 0)
    && isCount(k.end ?? 1, 1) && ['image', 'clip'].includes(k.kind)
    && ['crop', 'pad'].includes(k.fit) && typeof k.file === 'string' && typeof k.name === 'string'
    && Array.isArray(k.noise) && k.noise.length === k.span && k.noise.every(isUnit)
    && Array.isArray(k.focus) && k.focus.length === 2 && k.focus.every(isUnit);
}

/** A saved keyframe's file, from the saved timeline or else from this machine. */
async function savedFile(entry, files) {
  const data = Object.hasOwn(files, entry.file) ? files[entry.file] : null;
  const name = entry.name.slice(0, 200) || 'file';
  // Files that browsers do not show (TIFF, BMP) are served without a type; what they hold is looked at by the server.
  if (typeof data !== 'string' || !/^data:((image|video)\/[\w.+-]+|application\/octet-stream);base64,/.test(data)) {
    return { path: entry.file, url: addressOf(entry.file), name, saved: false };
  }
  const blob = await (await fetch(data)).blob();
  return { ...await upload(new File([blob], name, { type: blob.type })), name, saved: true };
}

async function savedSource({ path, url, name: source, saved }, grid, name) {
  const about = await ask(path, grid);
  if (about && !about.problem) return sourceOf(about, { path, url, name: source });
  if (!saved) throw new Unusable(say('file_gone', { source, name }));
  throw new Unusable(about?.problem ?? say('unreadable', { name: source }));
}

/** Where this server serves a file of its cache. */
function addressOf(path) {
  const base = (window.gradio_config?.root ?? '').replace(/\/$/, '');
  return `${base}/gradio_api/file=${path.split('/').map(encodeURIComponent).join('/')}`;
}
