// The whole: toolbar, history of changes, and the way to Python and back.

const MAX_UNDO = 200;
const SAME_STEP = 700;  // milliseconds in which presses of one key are one step of undo
const MAX_FIT = 3000;   // milliseconds in which Python fits a timeline of another model

let past = [], future = [];
let lastTag = null, lastTime = 0;
let model = null;    // rate and size of what Python sent last: those of the chosen model
let awaited = null;  // a step to a timeline of another model: Python will answer with that one fitted to this model

// --- changes --------------------------------------------------------------------------------------------------------

/** Take a new value: one step of undo, drawn, and told to Python. False when it is not news. */
function change(next, tag = null) {
  if (essence(next) === essence(value)) return false;
  const now = performance.now();
  if (!(tag && tag === lastTag && now - lastTime < SAME_STEP)) remember();
  lastTag = tag;
  lastTime = now;
  awaited = null;
  value = next;
  settle();
  return true;
}

function remember() {
  past.push(value);
  if (past.length > MAX_UNDO) past.shift();
  future = [];
}

function settle() {
  complain('');
  tell('');
  draw();
  commit();
}

function commit() {
  props.value = structuredClone(value);
  trigger('input', {});
}

function undo() { travel(past, future); }
function redo() { travel(future, past); }

function travel(from, to) {
  if (!from.length || dragging() || fitting()) return;
  const shown = value;
  to.push(value);
  value = from.pop();
  lastTag = null;
  awaited = isFitted(value) ? null : { from, to, shown, since: performance.now() };
  forget();
  settle();
}

/** Whether Python is still to answer to a step: the answer would undo a step beyond it. */
const fitting = () => !!awaited && performance.now() - awaited.since < MAX_FIT;

/** A step to a timeline that is, once fitted, what was shown before: it was none, and the next one is taken. */
function stepOn({ from, to, shown }) {
  if (essence(value) !== essence(shown)) return;
  to.pop();
  travel(from, to);
}

const modelOf = value =>
  value && JSON.stringify([value.grid.temporal_stride, value.grid.fps, value.width, value.height]);

/** Whether Python leaves a timeline as it is. */
const isFitted = value => modelOf(value) === model && slotsOf(value.grid) <= (prop('slots_max') || Infinity);

/** Only what is there can be chosen. */
function forget() {
  const there = new Set(value?.keyframes.map(k => k.id));
  const kept = [...chosen].filter(id => there.has(id));
  // The focus falls to the page when its node goes: keep it in the editor, so that the keys go on working.
  const lost = [...nodes].some(([id, { group }]) => !there.has(id) && group.contains(document.activeElement));
  if (lost) root.focus({ preventScroll: true });
  chosen = new Set(kept);
  several &&= kept.length > 0;
  if (cursor !== null && value && cursor >= slotsOf(value.grid)) cursor = null;
}

/** more: whether the next press adds to it. */
function take(ids, slot = null, more = false) {
  chosen = new Set(ids);
  cursor = ids.length ? null : slot;
  several = more && ids.length > 0;
  asked = null;
}

function choose(ids, slot = null, more = false) {
  enterTyped();
  take(ids, slot, more);
  draw();
}

/** Add a keyframe to what is chosen, or take it away. */
function toggle(id) {
  choose(chosen.has(id) ? [...chosen].filter(x => x !== id) : [...chosen, id], null, several);
}

/** A value that comes from Python is one step of undo as well, or the end of one. */
function load() {
  const next = props.value ? known(structuredClone(props.value)) : null;
  if (next && essence(next) === essence(value)) return;
  if (drag) endDrag(false);
  abandon?.();
  const step = awaited;
  awaited = null;
  if (value && next) { if (!step) remember(); lastTag = null; }
  value = next;
  model = modelOf(next);
  inspected = '';
  forget();
  draw();
  // What Python changed it also explains, and may have to say the same again.
  tell(prop('notice'));
  // Python is told of no other value before this one has come to its end.
  if (step && next) setTimeout(() => { if (value === next) stepOn(step); });
}

/** The same keyframes under the names that they have here, so that what is chosen stays chosen: Python names them anew,
 *  in their order. Several of one file are told apart by that order. */
function known(next) {
  const here = new Map();
  for (const k of inTime(value?.keyframes ?? [])) here.set(k.file.path, [...here.get(k.file.path) ?? [], k.id]);
  const taken = new Set([...here.values()].flat()), names = new Map();
  for (const { id, file } of inTime(next.keyframes)) {
    names.set(id, here.get(file.path)?.shift() ?? (taken.has(id) ? newId() : id));
  }
  return { ...next, keyframes: next.keyframes.map(k => ({ ...k, id: names.get(k.id) })) };
}

// --- toolbar --------------------------------------------------------------------------------------------------------

const title = make('h3', 'te-title', bar);
const facts = make('span', 'te-facts', bar);
const tools = make('div', 'te-tools', bar);
const menus = [];
let controls = {};

function buildBar() {
  closeMenus();
  write(title, say('title'));
  root.setAttribute('aria-label', say('title'));
  cellLayer.setAttribute('aria-label', say('lane_label'));
  tools.replaceChildren();
  const group = () => make('div', 'te-group', tools);
  const adding = group();
  const tool = (parent, name, more) => button(`te-do-${name}`, parent, { title: say(name), ...more });
  controls = {
    add: tool(adding, 'add', { icon: 'plus', text: say('add'), title: say('add_title'), press: () => chooseFiles() }),
    library: menu(adding, 'library', { text: say('library'), title: say('library_title') }, fillLibrary),
    take: tool(adding, 'take', { text: say('take'), title: say('take_title'), press: takeFrame }),
  };
  const steps = group();
  controls.undo = tool(steps, 'undo', { icon: 'undo', press: undo });
  controls.redo = tool(steps, 'redo', { icon: 'redo', press: redo });
  const sizes = group();
  tool(sizes, 'zoom_out', { icon: 'minus', press: () => zoomBy(1 / 1.3) });
  tool(sizes, 'fit', { text: say('fit'), title: say('fit_title'), press: zoomToFit });
  tool(sizes, 'zoom_in', { icon: 'plus', press: () => zoomBy(1.3) });
  const keeping = group();
  controls.save = tool(keeping, 'save', { icon: 'save', press: save });
  controls.load = tool(keeping, 'load', { icon: 'load', press: chooseSaved });
  controls.clear = tool(keeping, 'clear', { icon: 'clear', press: clear });
  menu(group(), 'help', { icon: 'help', title: say('help') }, fillHelp);
}

function drawBar() {
  const busy = prop('readonly');
  for (const name of ['add', 'load']) controls[name].disabled = busy;
  controls.undo.disabled = busy || !past.length;
  controls.redo.disabled = busy || !future.length;
  controls.clear.disabled = busy || !value.keyframes.length;
  controls.library.hidden = busy || !(prop('library') ?? []).length;
  root.classList.toggle('te-readonly', !!busy);
  root.classList.toggle('te-scrolls', geo.total > viewWidth + 1);
  lookForPlayer();
}

function clear() {
  take([]);
  change({ ...value, keyframes: [] });
}

/** A button with a panel that it opens. */
function menu(parent, name, look, fill) {
  const box = make('div', 'te-menu', parent);
  const opener = button(`te-do-${name}`, box, { ...look, press: () => toggle() });
  const panel = make('div', `te-panel te-panel-${name}`, box);
  panel.hidden = true;
  opener.setAttribute('aria-expanded', 'false');
  const toggle = (open = panel.hidden) => {
    if (open) { closeMenus(); panel.replaceChildren(); fill(panel, () => toggle(false)); }
    panel.hidden = !open;
    mark(opener, 'aria-expanded', open);
  };
  menus.push({ box, panel, close: () => { toggle(false); opener.focus(); } });
  return box;
}

function closeMenus() {
  const open = menus.filter(m => !m.panel.hidden);
  for (const m of open) m.close();
  return open.length > 0;
}

document.addEventListener('pointerdown', event => {
  for (const m of menus) if (!m.panel.hidden && !m.box.contains(event.target)) m.close();
}, { capture: true });

function fillLibrary(panel, close) {
  for (const entry of prop('library') ?? []) {
    const item = button('te-entry', panel, { press: () => {
      close();
      const slot = freeSlot(value, nextSlot());
      if (slot === null) complain(say('full'));
      else order('library_pick', { id: entry.id, slot }, say('fetching', { name: entry.title }));
    } });
    if (entry.picture) picture(item, entry.picture);
    make('span', '', item, entry.title);
  }
}

function fillHelp(panel) {
  const keys = make('dl', 'te-help', panel);
  for (const [combination, words] of [
    ['Tab', 'help_tab'], ['← →', 'help_arrows'], ['Ctrl + ← →', 'help_edge'], ['Shift + ↑ ↓', 'help_shift'],
    ['Home End', 'help_ends'],
    ['Del', 'help_delete'], ['Ctrl + Z, Y', 'help_undo'], ['Ctrl + C X V D', 'help_copy'], ['Esc', 'help_escape'],
    [`Shift + ${say('key_click')}`, 'help_select'], [say('key_space'), 'help_space'],
    ['Ctrl + A', 'help_all'], [`Alt + ${say('key_drag')}`, 'help_fine'],
    [`Ctrl + ${say('key_wheel')}`, 'help_wheel'],
  ]) {
    make('dt', '', keys, combination);
    make('dd', '', keys, say(words));
  }
}

// --- start ----------------------------------------------------------------------------------------------------------

function dress() {
  buildBar();
  drawAxis();
  drawnGeo = null;
  inspected = '';
  for (const node of nodes.values()) node.k = null;
}

new ResizeObserver(([entry]) => {
  if (dragging() || Math.abs(entry.contentRect.width - viewWidth) < 1) return;
  viewWidth = entry.contentRect.width;
  if (value) draw();
}).observe(scroll);

watch('value', load);
watch('strings', () => { dress(); draw(); });
watch(['advice', 'readonly', 'library', 'player'], () => draw());
watch('notice', () => tell(prop('notice')));
watch('result', drawResult);
watch('placed', receive);
watch('live', () => { if (geo) drawLive(); });
viewWidth = scroll.clientWidth;
complain('');
tell(prop('notice'));
drawResult();
dress();
load();
draw();
