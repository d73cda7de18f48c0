// Files: added, replaced, saved and loaded.

const MAX_IMAGE = 4_000_000, MAX_CLIP = 8_000_000, MAX_SAVED = 200_000_000;  // bytes; what goes into a saved timeline
const FORMAT = 1;

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
  const files = [...picker.files];
  picker.value = '';
  if (!files.length) return;
  if (pickedFor === 'saved') await loadSaved(files[0]);
  else if (pickedFor) await replaceFile(pickedFor, files[0]);
  else await addFiles(files);
});

/** Where the next keyframe goes: the chosen slot, else behind what is chosen, else the first free one. */
function nextSlot() {
  const last = chosenKeys().at(-1);
  return clamp(cursor ?? (last ? endOf(last) : 0), 0, geo.slots - 1);
}

async function addFiles(files, slot = nextSlot()) {
  complain('');
  for (const file of files) {
    if (isSaved(file)) { await loadSaved(file); return; }
    const at = freeSlot(value, Math.min(slot, slotsOf(value.grid) - 1));
    if (at === null) { complain(say('full')); return; }
    const source = await bring(file, at);
    if (!source) return;
    const added = add(source, at);
    if (!added) return;
    slot = endOf(added);
  }
}

const isSaved = file => file.type === 'application/json' || file.name.toLowerCase().endsWith('.json');

/** A new keyframe of a source; null, and words about it, where it does not fit. */
function add(source, slot) {
  const span = source.kind === 'image' ? 1 : Math.max(1, Math.min(freeRun(value, slot), Math.ceil(geo.slots / 2)));
  const noise = Array(span).fill(clamp(Number(prop('new_noise')) || 0, 0, 1));
  const k = { id: newId(), slot, span, noise, start: 0, fit: 'crop', focus: [0.5, 0.5], ...source };
  const most = Math.max(1, longestSpan(value.grid, k, slot));
  const [next, reason] = inserted(value, span > most ? { ...k, span: most, noise: resized(noise, most) } : k, slot);
  if (!next) { complain(say(reason, { ...k, stride: value.grid.temporal_stride })); return null; }
  chosen = new Set([k.id]);
  cursor = null;
  change(next);
  nodes.get(k.id).card.focus({ preventScroll: true });
  return next.keyframes.at(-1);
}

async function replaceFile(id, file) {
  complain('');
  const source = await bring(file, value.keyframes.find(k => k.id === id)?.slot);
  const old = value.keyframes.find(k => k.id === id);
  if (!source || !old) return;
  const wide = { ...old, ...source, start: 0, begin: 0, end: null, span: source.kind === 'image' ? 1 : old.span };
  const span = Math.min(wide.span, longestSpan(value.grid, wide, old.slot));
  if (span < 1) { complain(say('too_short', { ...source, stride: value.grid.temporal_stride })); return; }
  change(replaced(value, { ...wide, span, noise: resized(old.noise, span) }));
}

/** Upload a file and ask what it is: what a keyframe needs of its source; null, and words about it, on failure. */
async function bring(file, slot) {
  const name = file.name || 'picture.png';
  const done = wait(say('uploading', { name }), slot);
  try {
    if (file.type && !/^(image|video)\//.test(file.type)) { complain(say('not_media', { name })); return null; }
    let stored;
    try { stored = await upload(file); } catch { complain(say('upload_failed', { name })); return null; }
    return await describeFile({ ...stored, name, type: file.type, size: file.size });
  } finally { done(); }
}

async function describeFile({ path, url, name, type, size }) {
  const about = await ask(path);
  if (!about || about.problem) { complain(about?.problem ?? say('unreadable', { name })); return null; }
  return sourceOf(about, { path, url, name, type, size });
}

/** What a keyframe holds of its source: what it is, and the file as Gradio's FileData. */
function sourceOf({ kind, frames, thumbs }, { path, url, name, type = null, size = null }) {
  const file = { path, url, orig_name: name, mime_type: type || null, size, is_stream: false };
  return { kind, frames, thumbs, name: name.slice(0, 255), file: { ...file, meta: { _type: 'gradio.FileData' } } };
}

async function ask(path) {
  try { return await server.describe(path, value.grid.fps); } catch { return null; }
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

class Unusable extends Error {}

/** Put a saved timeline in the place of this one. When anything is wrong with it, one sentence and no change. */
async function loadSaved(file) {
  complain('');
  const done = wait(say('uploading', { name: file.name }));
  try {
    const next = await readSaved(file);
    chosen = new Set();
    cursor = null;
    change(next);
    tell(say('loaded', { name: file.name }));
  } catch (error) {
    complain(error instanceof Unusable ? error.message : say('bad_file', { name: file.name }));
  } finally { done(); }
}

async function readSaved(file) {
  const { name } = file;
  if (file.size > MAX_SAVED) throw new Unusable(say('file_too_large', { name }));
  const saved = JSON.parse(await file.text());
  if (saved?.pusa_timeline !== FORMAT || !Array.isArray(saved.keyframes)) throw new Unusable(say('bad_file', { name }));
  const slots = slotsOf(saved.grid ?? {});
  if (!Number.isInteger(slots) || slots < 1) throw new Unusable(say('bad_file', { name }));
  const most = prop('slots_max') || Infinity;
  if (slots > most) throw new Unusable(say('bad_slots', { name, slots, most }));
  // How frames fall into slots is the model's matter; the file says how many slots there are.
  const next = { ...value, grid: { ...value.grid, num_frames: framesForSlots(value.grid, slots) }, keyframes: [] };
  for (const [i, entry] of saved.keyframes.entries()) {
    next.keyframes.push(await readEntry(next, entry, i + 1, saved.files ?? {}, name));
  }
  return next;
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

async function readEntry(next, entry, count, files, name) {
  const wrong = new Unusable(say('bad_entry', { count, name }));
  if (!isEntry(entry)) throw wrong;
  const source = await savedSource(entry, files, name);
  const { slot, span, noise, start = 0, begin = 0, end = null, fit, focus } = entry;
  const k = { id: newId(), slot, span, noise, start, begin, end, fit, focus, ...source };
  const fits = k.kind === entry.kind && endOf(k) <= slotsOf(next.grid) && longestSpan(next.grid, k, slot) >= span;
  if (!fits || !isFree(takenSlots(next), k)) throw wrong;
  return k;
}

/** A saved keyframe's file, from the saved timeline or else from this machine. */
async function savedSource(entry, files, name) {
  const data = Object.hasOwn(files, entry.file) ? files[entry.file] : null;
  const label = entry.name.slice(0, 200) || 'file';
  let stored = { path: entry.file, url: addressOf(entry.file) };
  if (typeof data === 'string' && /^data:(image|video)\/[\w.+-]+;base64,/.test(data)) {
    const blob = await (await fetch(data)).blob();
    stored = await upload(new File([blob], label, { type: blob.type }));
  }
  const about = await ask(stored.path);
  if (about && !about.problem) return sourceOf(about, { ...stored, name: label });
  if (data) throw new Unusable(about?.problem ?? say('unreadable', { name: label }));
  throw new Unusable(say('file_gone', { source: label, name }));
}

/** Where this server serves a file of its cache. */
function addressOf(path) {
  const base = (window.gradio_config?.root ?? '').replace(/\/$/, '');
  return `${base}/gradio_api/file=${path.split('/').map(encodeURIComponent).join('/')}`;
}
