// The Library: what is searched for and chosen is held here; Python answers with the list. This chapter is the grid.
const root = element.querySelector('.library');
const button = buttons();
const say = (key, values) => filled(WORDS[key], values);
const counted = (count, one, many) => say(count === 1 ? one : many, { count });
const served = url => `${(window.gradio_config?.root ?? '').replace(/\/$/, '')}/${url}`;
const SVG = 'http://www.w3.org/2000/svg';
function icon(path, parent) {
  const svg = document.createElementNS(SVG, 'svg'), line = document.createElementNS(SVG, 'path');
  svg.setAttribute('viewBox', '0 0 20 20');
  svg.setAttribute('aria-hidden', 'true');
  line.setAttribute('d', path);
  svg.append(line);
  parent.append(svg);
  return line;
}
const STAR = 'M10 2.6l2.3 4.7 5.2.7-3.8 3.6.9 5.1L10 14.3l-4.6 2.4.9-5.1L2.5 8l5.2-.7z';
const still = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' });
const hour = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
function when(seconds) {
  const date = new Date(seconds * 1000), ago = (new Date().setHours(0, 0, 0, 0) - new Date(date).setHours(0, 0, 0, 0)) / 864e5;
  const name = ago < 0.5 ? WORDS.today : ago < 1.5 ? WORDS.yesterday : day.format(date);
  return `${name}, ${hour.format(date)}`;
}

// --- what is asked for ----------------------------------------------------------------------------------------------

const ALL = { text: '', task: '', model: '', favourite: false, deleted: false, newest: true };
let query = { ...ALL }, limit = WORDS.page, asked = 0, typing = 0, coming = 0;
let items = [], shownOnce = false, late = 0;
const hidden = new Set();  // deleted or restored here, while Python is at it

const seen = () => root.isConnected && root.checkVisibility();
/** Send an event together with what is searched for; its answer is the list of that moment. */
function send(name, data = {}, count = true) {
  asked += 1;
  trigger(name, { ...data, query: { ...query, limit, asked, count } });
}
/** Ask for the list; while an answer is awaited, once more when it has come. */
let flying = 0, again = false;
function ask(count = true) {
  clearTimeout(typing);
  clearTimeout(coming);
  if (Date.now() - flying < 15_000) { again = true; return; }
  flying = Date.now();
  send('search', {}, count);
}
function askSoon() { clearTimeout(typing); typing = setTimeout(() => ask(false), 180); }
function filter(changes) {
  query = { ...query, ...changes };
  limit = WORDS.page;
  picked.clear();
  drawTools();
  if ('text' in changes) askSoon(); else ask();
}

// --- the frame of the page ------------------------------------------------------------------------------------------

const list = make('div', 'lib-list', root);
const one = make('div', 'lib-one', root);
const pair = make('div', 'lib-pair', root);
const snack = make('div', 'lib-snack', root);
snack.setAttribute('role', 'status');
let view = 'list', scrolled = 0;
function turn(to) {
  if (view === 'list') scrolled = window.scrollY;
  view = to;
  list.hidden = to !== 'list';
  one.hidden = to !== 'one';
  pair.hidden = to !== 'pair';
  window.scrollTo({ top: to === 'list' ? scrolled : 0 });
}

const tools = make('div', 'lib-tools', list);
const field = make('input', 'lib-search', tools);
field.type = 'search';
field.placeholder = WORDS.search;
field.setAttribute('aria-label', WORDS.search);
field.maxLength = 200;
field.addEventListener('input', () => filter({ text: field.value }));
field.addEventListener('keydown', event => { if (event.key === 'ArrowDown') { event.preventDefault(); cards()[0]?.open.focus(); } });
function chooser(label, options, act) {
  const select = make('select', 'lib-select', tools);
  select.setAttribute('aria-label', label);
  for (const [value, title] of options) make('option', '', select, title).value = value;
  select.addEventListener('change', () => act(select.value));
  return select;
}
const taskField = chooser(WORDS.task, [['', WORDS.any_task], ...WORDS.tasks], task => filter({ task }));
const modelField = chooser(WORDS.model, [['', WORDS.any_model], ...WORDS.models], model => filter({ model }));
modelField.hidden = WORDS.models.length < 2;
const orderField = chooser(WORDS.order, [['newest', WORDS.newest], ['oldest', WORDS.oldest]], order => filter({ newest: order === 'newest' }));
const starred = button('lib-filter', tools, WORDS.favourites, () => filter({ favourite: !query.favourite }));
const gone = button('lib-filter', tools, WORDS.deleted, () => filter({ deleted: !query.deleted }));
const bar = make('div', 'lib-bar', list);
const usage = make('span', 'lib-usage', bar);
const chosen = make('div', 'lib-chosen', bar);
const count = make('span', 'lib-count', chosen);
const compareAct = button('lib-act', chosen, WORDS.compare, () => compare([...picked]));
const removeAct = button('lib-act', chosen, WORDS.delete, () => (query.deleted ? restore : remove)([...picked]));
button('lib-act lib-quiet', chosen, WORDS.clear, () => { picked.clear(); drawPicked(); });
const grid = make('div', 'lib-grid', list);
grid.setAttribute('role', 'list');
grid.setAttribute('aria-label', WORDS.videos);
const none = make('div', 'lib-none', list);
const noneTitle = make('div', 'lib-none-title', none);
const noneDetail = make('div', 'lib-none-detail', none);
const noneAct = button('lib-act', none, WORDS.clear_filters, () => { field.value = ''; filter(ALL); });
const more = button('lib-act lib-more', list, WORDS.more, () => { limit += WORDS.page; more.disabled = true; ask(); });

function drawTools() {
  if (field.value !== query.text) field.value = query.text;
  taskField.value = query.task;
  modelField.value = query.model;
  orderField.value = query.newest ? 'newest' : 'oldest';
  starred.setAttribute('aria-pressed', query.favourite);
  gone.setAttribute('aria-pressed', query.deleted);
  write(removeAct, query.deleted ? WORDS.restore : WORDS.delete);
}

// --- cards ----------------------------------------------------------------------------------------------------------

const nodes = new Map();
const picked = new Set();
const pictures = new Map(), clips = new Map();
let lastPicked = null, tabbed = null;
const cards = () => items.filter(i => !hidden.has(i.id)).map(i => nodes.get(i.id));

function card(id) {
  const box = make('div', 'lib-card');
  box.setAttribute('role', 'listitem');
  const open = button('lib-open', box, null, event => {
    if (event.shiftKey || event.ctrlKey || event.metaKey) pick(id, event.shiftKey); else visit(id);
  });
  open.setAttribute('aria-keyshortcuts', 'Enter F Delete');
  const frame = make('span', 'lib-frame', open);
  const picture = make('img', 'lib-picture', frame);
  picture.alt = '';
  const badge = make('span', 'lib-badge', frame);
  const title = make('span', 'lib-title', open);
  const facts = make('span', 'lib-facts', open);
  const mark = make('label', 'lib-pick', box);
  const box_ = make('input', '', mark);
  box_.type = 'checkbox';
  box_.addEventListener('click', event => { event.preventDefault(); setTimeout(() => pick(id, event.shiftKey)); });
  const star = button('lib-star', box, null, () => favour(id));
  icon(STAR, star);
  const back = button('lib-act lib-back', box, WORDS.restore, () => restore([id]));
  const n = { id, box, open, frame, picture, badge, title, facts, mark, check: box_, star, back, hover: 0, film: null };
  open.addEventListener('pointerenter', event => { if (event.pointerType === 'mouse') soon(n); });
  open.addEventListener('pointerleave', () => stop(n));
  open.addEventListener('focus', () => { tab(n); if (open.matches(':focus-visible')) soon(n); });
  open.addEventListener('blur', () => stop(n));
  box.dataset.id = id;
  looking.observe(box);
  return n;
}

function draw() {
  const focused = document.activeElement?.closest?.('.lib-card')?.dataset.id;
  const visible = items.filter(i => !hidden.has(i.id)), alive = new Set(visible.map(i => i.id));
  for (const [id, n] of nodes) if (!alive.has(id)) { stop(n); looking.unobserve(n.box); n.box.remove(); nodes.delete(id); picked.delete(id); }
  visible.forEach((item, at) => {
    if (!nodes.has(item.id)) nodes.set(item.id, card(item.id));
    const n = nodes.get(item.id), name = item.title || WORDS.no_prompt;
    write(n.title, name);
    write(n.facts, [item.task, item.model, item.cells ? '' : say('seed', item)].filter(Boolean).join(' · '));
    n.facts.dataset.when = [when(item.made), item.took].filter(Boolean).join(' · ');
    write(n.badge, item.cells ? say('sweep', { count: item.cells }) : '');
    n.open.title = item.title;
    n.star.setAttribute('aria-pressed', item.favourite);
    n.star.setAttribute('aria-label', `${WORDS.star}: ${name}`);
    n.check.setAttribute('aria-label', `${WORDS.pick}: ${name}`);
    n.back.setAttribute('aria-label', `${WORDS.restore}: ${name}`);
    n.star.hidden = item.deleted;
    n.back.hidden = !item.deleted;
    if (grid.children[at] !== n.box) grid.insertBefore(n.box, grid.children[at] || null);
  });
  if (focused && !alive.has(focused)) (cards()[0]?.open ?? field).focus();
  const filtered = query.text || query.task || query.model;
  none.hidden = visible.length > 0 || !shownOnce;
  const key = filtered ? 'no_match' : query.deleted ? 'empty_deleted' : query.favourite ? 'empty_favourites' : 'empty';
  write(noneTitle, WORDS[key]);
  write(noneDetail, WORDS[`${key}_detail`]);
  noneAct.hidden = key === 'empty';
  root.classList.toggle('lib-bare', key === 'empty' && !visible.length && shownOnce && !usage.textContent);
  drawPicked();
  tab(nodes.get(tabbed) ?? cards()[0]);
}

/** One card is in the order of the Tab key; the arrows go to the others. */
function tab(n) {
  tabbed = n?.id ?? null;
  for (const other of nodes.values()) for (const e of [other.open, other.check, other.star, other.back]) e.tabIndex = other === n ? 0 : -1;
}

function pick(id, range) {
  const ids = cards().map(n => n.id), to = ids.indexOf(id), from = ids.indexOf(lastPicked);
  if (range && from >= 0) for (let i = Math.min(from, to); i <= Math.max(from, to); i++) picked.add(ids[i]);
  else if (!picked.delete(id)) picked.add(id);
  lastPicked = id;
  drawPicked();
}

function drawPicked() {
  for (const n of nodes.values()) {
    n.check.checked = picked.has(n.id);
    n.box.classList.toggle('lib-picked', picked.has(n.id));
  }
  grid.classList.toggle('lib-picking', picked.size > 0);
  chosen.hidden = !picked.size;
  write(count, counted(picked.size, 'picked_one', 'picked'));
  compareAct.disabled = picked.size !== 2 || query.deleted;
  compareAct.title = compareAct.disabled ? WORDS.compare_help : '';
}

grid.addEventListener('keydown', event => {
  const n = nodes.get(event.target.closest('.lib-card')?.dataset.id);
  if (!n || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = cards(), at = all.indexOf(n);
  const columns = getComputedStyle(grid).gridTemplateColumns.split(' ').length;
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: all.length - 1 }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    if (to < 0 && event.key === 'ArrowUp') field.focus();
    else (all[to] ?? (event.key === 'ArrowDown' ? all.at(-1) : n)).open.focus();
  } else if (event.key === 'f' || event.key === 'F') favour(n.id);
  else if (event.key === 'Delete' && !query.deleted) remove(picked.has(n.id) ? [...picked] : [n.id]);
  else if (event.key === 'Escape' && picked.size) { picked.clear(); drawPicked(); }
  else return;
  event.preventDefault();
});

// --- pictures, which come when they are in view, and films under the pointer -------------------------------------------

let wanted = { posters: new Set(), clips: new Set() }, waits = 0, gathering = 0;
const looking = new IntersectionObserver(entries => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) want('posters', target.dataset.id);
}, { rootMargin: '300px' });

function want(kind, id) {
  if ((kind === 'posters' ? pictures : clips).has(id)) { dress(id); return; }
  wanted[kind].add(id);
  clearTimeout(gathering);
  gathering = setTimeout(fetchLooks, 20);
}

/** One request at a time; an answer that never came is asked for again. */
function fetchLooks() {
  if (Date.now() < waits || !(wanted.posters.size + wanted.clips.size)) return;
  waits = Date.now() + 15_000;
  setTimeout(fetchLooks, 15_100);
  trigger('look', { posters: [...wanted.posters].slice(0, 60), clips: [...wanted.clips].slice(0, 4) });
}

watch('looks', () => {
  const { posters = {}, clips: films = {} } = props.looks || {};
  for (const [id, url] of Object.entries(posters)) { pictures.set(id, url); wanted.posters.delete(id); dress(id); }
  for (const [id, url] of Object.entries(films)) { clips.set(id, url); wanted.clips.delete(id); dress(id); }
  waits = 0;
  fetchLooks();
});

function dress(id) {
  const n = nodes.get(id), picture = pictures.get(id);
  if (!n) return;
  if (picture && n.picture.src !== picture) n.picture.src = picture;
  if (n.hover === 2 && !n.film && clips.get(id)) {
    n.film = make('video', 'lib-film', n.frame);
    Object.assign(n.film, { muted: true, loop: true, playsInline: true, src: served(clips.get(id)) });
    n.film.play().catch(() => {});
  }
}

function soon(n) {
  if (still) return;
  clearTimeout(n.timer);
  n.hover = 1;
  n.timer = setTimeout(() => { n.hover = 2; want('clips', n.id); }, 220);
}
function stop(n) {
  clearTimeout(n.timer);
  n.hover = 0;
  wanted.clips.delete(n.id);
  n.film?.remove();
  n.film = null;
}

// --- what is done to videos --------------------------------------------------------------------------------------------

const itemOf = id => items.find(i => i.id === id);
function favour(id) {
  const item = itemOf(id), on = !(item ?? opened).favourite;
  if (item) item.favourite = on;
  if (opened?.id === id) { opened.favourite = on; drawStar(); }
  send('star', { ids: [id], on });
  draw();
}

/** Take videos out of the list at once; the card after them is the next. */
function leave(ids) {
  const all = cards(), at = all.findIndex(n => ids.includes(n.id)), inside = grid.contains(document.activeElement);
  const next = all.slice(at + 1).find(n => !ids.includes(n.id)) ?? all.slice(0, Math.max(at, 0)).reverse().find(n => !ids.includes(n.id));
  if (inside) (next?.open ?? field).focus();
  for (const id of ids) { hidden.add(id); picked.delete(id); }
  draw();
}
function remove(ids) {
  leave(ids);
  send('remove', { ids });
  tell(counted(ids.length, 'deleted_one', 'deleted_many'), () => restore(ids, true));
}
function restore(ids, undoing = false) {
  if (!undoing) leave(ids); else for (const id of ids) hidden.delete(id);
  send('restore', { ids });
  tell(WORDS.restored);
}

let fading = 0;
function tell(text, undo) {
  snack.replaceChildren();
  make('span', 'lib-snack-text', snack, text);
  if (undo) button('lib-undo', snack, WORDS.undo, () => { snack.classList.remove('lib-on'); undo(); });
  snack.classList.add('lib-on');
  fade(undo ? 10_000 : 5000);
}
function fade(after) { clearTimeout(fading); fading = setTimeout(() => snack.classList.remove('lib-on'), after); }
snack.addEventListener('pointerenter', () => clearTimeout(fading));
snack.addEventListener('pointerleave', () => fade(4000));
snack.addEventListener('focusin', () => clearTimeout(fading));

// --- what Python says --------------------------------------------------------------------------------------------------

function taken() {
  const value = props.value || {};
  if (!value.items) return;
  flying = 0;
  if (again) { again = false; ask(); }
  // A late answer is of another question; and what was asked before something was changed may not know of it.
  if (value.asked < asked) { clearTimeout(late); late = setTimeout(ask, 400); return; }
  hidden.clear();
  items = value.items;
  shownOnce = true;
  more.hidden = !value.more;
  more.disabled = false;
  if (value.usage != null) write(usage, value.usage);
  draw();
  clearTimeout(coming);
  if (value.going) coming = setTimeout(() => { if (seen()) ask(); }, 3000);
}
watch('value', taken);
watch('told', () => { if (props.told?.text) { tell(props.told.text); stopSaving(); } });

// The page is loaded anew whenever it comes into view: videos may have been made, here or elsewhere.
new IntersectionObserver(([entry]) => { if (entry.isIntersecting) ask(); }).observe(root);
document.addEventListener('visibilitychange', () => { if (!document.hidden && seen()) ask(); });
more.hidden = none.hidden = chosen.hidden = true;
drawTools();
