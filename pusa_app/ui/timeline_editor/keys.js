// Keys and the clipboard.

let copied = { keys: [], grid: null };  // keyframes, and the grid that their numbers are of

const isTyping = target => target.matches('input, textarea, select');

root.addEventListener('keydown', event => {
  if (!value) return;
  if (event.key === 'Escape') { escape(event); return; }
  if (dragging()) return;
  // A field whose content is as it was has nothing to undo of its own.
  const idle = !isTyping(event.target) || event.target.dataset.dirty !== 'yes';
  if ((event.ctrlKey || event.metaKey) && idle && command(event)) { event.preventDefault(); return; }
  if (isTyping(event.target) || prop('readonly')) return;
  const { classList } = event.target;
  const handled = classList.contains('te-card') ? keyOfCard(event)
    : classList.contains('te-dot') ? keyOfHandle(event)
      : classList.contains('te-cell') ? keyOfSlot(event) : false;
  if (handled || deleteKey(event)) { event.preventDefault(); event.stopPropagation(); }
});

function escape(event) {
  if (drag) endDrag(false);
  else if (abandon) abandon();
  else if (isTyped(event.target)) { event.target.dataset.dirty = 'no'; refreshInspector(); }
  else if (!closeMenus()) { if (chosen.size) choose([]); else return; }
  event.preventDefault();
  event.stopPropagation();
}

/** Undo, redo, duplicate and choose all; true when it was one of them. Copy, cut and paste are events of their own. */
function command(event) {
  const key = event.key.toLowerCase();
  if (key === 'a' && !isTyping(event.target)) return choose(value.keyframes.map(k => k.id)), true;
  if (prop('readonly')) return false;
  if (key === 'z') return event.shiftKey ? redo() : undo(), true;
  if (key === 'y') return redo(), true;
  if (key === 'd' && !isTyping(event.target)) return duplicate(), true;
  return false;
}

function deleteKey(event) {
  if (event.key !== 'Delete' && event.key !== 'Backspace') return false;
  if (!tracks.contains(event.target) || !chosen.size) return false;
  remove();
  return true;
}

const noiseStep = event => event.altKey ? 0.01 : 0.05;

function keyOfCard(event) {
  const k = value.keyframes.find(x => x.id === event.target.parentNode.dataset.id);
  const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
  if (by && event.shiftKey) return change(louder(value, chosenKeys(), by * noiseStep(event)), 'noise'), true;
  if (by && (event.ctrlKey || event.metaKey)) return setSpan(k, k.span + by), true;
  if (by) return moveBy(k, by), true;
  if (event.key === 'Home') return change(stepped(value, k, 1, -1)), true;
  if (event.key === 'End') return change(stepped(value, k, -1, geo.slots)), true;
  if (event.key === 'Enter') return inspector.querySelector('input')?.focus(), true;
  // The first press says that several are wanted: from there on Tab goes on without choosing.
  if (event.key === ' ') return several ? toggle(k.id) : choose([...new Set(chosen).add(k.id)], null, true), true;
  return false;
}

function moveBy(k, by) {
  const next = chosen.size > 1 ? moved(value, chosen, by) : stepped(value, k, by);
  complain(change(next, 'move') ? '' : say('no_room'));
}

function keyOfHandle(event) {
  const id = event.target.parentNode.dataset.id, index = Number(event.target.dataset.index);
  const k = value.keyframes.find(x => x.id === id);
  const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 4, PageDown: -4, Home: -100, End: 100 }[event.key];
  if (by) return change(louder(value, [k], by * noiseStep(event), index), 'noise'), true;
  const to = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!to) return false;
  if (event.shiftKey) return change(louder(value, [k], to * noiseStep(event), index), 'noise'), true;
  nodes.get(id).dots[index + to]?.focus();
  return true;
}

function keyOfSlot(event) {
  const slot = Number(event.target.dataset.slot);
  const to = { ArrowLeft: slot - 1, ArrowRight: slot + 1, Home: 0, End: geo.slots - 1 }[event.key];
  if (to !== undefined) {
    choose([], clamp(to, 0, geo.slots - 1));
    cells[cursor].box.focus();
    return true;
  }
  if (event.key !== 'Enter' && event.key !== ' ') return false;
  choose([], slot);
  if (atCursor()) goTo(atCursor().id); else chooseFiles();
  return true;
}

// What a pointer focuses it has chosen already, and shows so; what Tab comes to is chosen and has a ring.
let byKeys = false;
const watchHands = keys => () => { byKeys = keys; root.classList.toggle('te-by-pointer', !keys); };
document.addEventListener('keydown', watchHands(true), { capture: true });
document.addEventListener('pointerdown', watchHands(false), { capture: true });

root.addEventListener('focusin', event => {
  const key = event.target.closest('.te-key');
  if (key && byKeys && !several && !chosen.has(key.dataset.id) && !dragging()) choose([key.dataset.id]);
});

// --- the clipboard --------------------------------------------------------------------------------------------------

const mayCopy = event => value && chosen.size > 0 && !isTyping(event.target) && !dragging();

/** Some text goes on the system's clipboard too, so that an older picture there does not come back with Ctrl+V. */
function copy(event) {
  if (!mayCopy(event)) return false;
  copied = { keys: chosenKeys(), grid: value.grid };
  event.clipboardData.setData('text/plain', copied.keys.map(k => keyframeText(value.grid, k)).join('\n'));
  event.preventDefault();
  return true;
}

root.addEventListener('copy', copy);
root.addEventListener('cut', event => { if (!prop('readonly') && copy(event)) remove(); });
root.addEventListener('paste', event => {
  if (!value || prop('readonly') || isTyping(event.target) || dragging()) return;
  const files = [...event.clipboardData.files];
  event.preventDefault();
  if (files.length) addFiles(files);
  else pasteCopied();
});

function duplicate() { pasteKeys(chosenKeys()); }

/** What was copied, as of this model's frames: it may have been copied under another model. */
async function pasteCopied() {
  const { keys, grid: from } = copied;
  if (!keys.length || sameClock(from, value.grid)) { pasteKeys(keys); return; }
  await attempt(async () => {
    const [fitted, notes] = await forPresent(async grid => refitted(await described(keys, grid), from, grid));
    pasteKeys(fitted, keys.length);
    if (notes.length) tell(say('pasted'));
  });
}

/** Copies of keyframes go into the next free slots; `count`: of how many they are what is left. */
function pasteKeys(keys, count = keys.length) {
  let next = value, from = nextSlot(), why = '';
  const ids = [], words = [];
  for (const k of keys) {
    const [grown, reason] = inserted(next, { ...k, id: newId() }, from);
    if (!grown) { why ||= say(reason, { ...k, stride: value.grid.temporal_stride }); continue; }
    next = grown;
    const added = next.keyframes.at(-1);
    ids.push(added.id);
    if (added.span < k.span) words.push(shorterWords(added, k.span));
    from = Math.min(endOf(added), geo.slots - 1);
  }
  if (ids.length) {
    take(ids);
    change(next);
    nodes.get(ids[0]).card.focus({ preventScroll: true });
  }
  const lost = count - ids.length;
  if (lost) words.unshift(count === 1 && why ? why : say('copies_lost', { lost, count }));
  if (words.length) complain([...new Set(words)].slice(0, MAX_REASONS).join(' '));
}

/** Why a copy has less than `whole` slots: there are no more frames from its slot on, or no more room. */
function shorterWords(k, whole) {
  return longestSpan(value.grid, k, k.slot) > k.span ? say('copy_cut', { ...k, whole }) : say('ends', k);
}

function remove() {
  const keys = inTime(value.keyframes), gone = chosenKeys();
  if (!gone.length) return;
  const after = keys.find(k => k.slot > gone.at(-1).slot) ?? keys.filter(k => !chosen.has(k.id)).at(-1);
  const ids = chosen;
  take(after ? [after.id] : [], after ? null : gone[0].slot);
  change({ ...value, keyframes: value.keyframes.filter(k => !ids.has(k.id)) });
  const next = after ? nodes.get(after.id)?.card : cells[cursor]?.box;
  next?.focus({ preventScroll: true });
}
