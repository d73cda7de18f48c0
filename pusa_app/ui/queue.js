// What runs, what waits and what ended without a video. Rows are kept by job, so that nothing jumps while they change;
// the waiting ones are put in order by dragging, by buttons and by Alt with the arrows.
const root = element.querySelector('.queue');
const rows = new Map();
const pictures = new Map();  // by their names: each is sent once
let order = [];          // ids of the waiting, as they are shown
let sent = null;         // the order that was asked for and is not confirmed yet
let drag = null;
let missed = null;
let asking = false;      // whether "clear" waits for a second press

const button = buttons('q-button');
const say = (key, values) => filled(WORDS[key], values);
const act = (verb, id = '') => trigger('act', { verb, id });
const still = window.matchMedia('(prefers-reduced-motion: reduce)');

// --- the frame ------------------------------------------------------------------------------------------------------

const head = make('div', 'q-head', root);
const summary = make('p', 'q-summary', head);
const tools = make('div', 'q-tools', head);
const pause = button('q-pause', tools, '', () => act(props.value?.paused ? 'go_on' : 'pause'));
const clear = button('q-clear', tools, '', () => { asking = true; draw(); sure.focus(); });
const question = make('span', 'q-question', tools);
const sure = button('q-sure', tools, '', () => { asking = false; act('clear'); draw(); });
const keep = button('q-keep', tools, WORDS.keep, () => { asking = false; draw(); clear.focus(); });
const nothing = make('div', 'q-nothing', root);
make('p', 'q-nothing-title', nothing, WORDS.nothing);
make('p', 'q-nothing-detail', nothing, WORDS.nothing_detail);
const section = (name, title) => {
  const box = make('section', 'q-section', root);
  make('h3', 'q-title', box, title);
  const list = make('ol', `q-list q-${name}`, box);
  list.setAttribute('aria-label', title);
  return { box, list };
};
const running = section('running', WORDS.running);
const waiting = section('waiting', WORDS.waiting);
const ended = section('ended', WORDS.ended);
const told = make('p', 'q-told', root);
told.setAttribute('role', 'status');
waiting.list.setAttribute('aria-describedby', 'q-how');
make('p', 'q-how', waiting.box, WORDS.how).id = 'q-how';

// --- a row ----------------------------------------------------------------------------------------------------------

function row(id) {
  const node = make('li', 'q-row');
  node.dataset.id = id;
  const grip = make('button', 'q-grip', node);
  grip.append(...Array.from({ length: 6 }, () => make('i', 'q-dot')));
  const thumb = make('div', 'q-thumb', node);
  const picture = make('img', 'q-picture', thumb);
  picture.alt = '';
  picture.draggable = false;
  const name = make('span', 'q-task', thumb);
  const main = make('div', 'q-main', node);
  const title = make('div', 'q-name', main);
  const facts = make('div', 'q-facts', main);
  const message = make('div', 'q-message', main);
  const progress = make('div', 'q-progress', main);
  const bar = make('div', 'q-bar', progress);
  const fill = make('div', 'q-fill', bar);
  bar.setAttribute('role', 'progressbar');
  bar.setAttribute('aria-valuemin', 0);
  bar.setAttribute('aria-valuemax', 100);
  const figures = make('div', 'q-figures', progress);
  const step = make('span', 'q-step', figures), elapsed = make('span', '', figures);
  const memory = make('span', '', figures), left = make('span', 'q-left', figures);
  const acts = make('div', 'q-acts', node);
  const r = { node, grip, picture, name, title, facts, message, progress, bar, fill, step, elapsed, memory, left, film: null, count: 0 };
  r.up = button('q-up', acts, '↑', () => step_by(id, -1));
  r.down = button('q-down', acts, '↓', () => step_by(id, 1));
  r.see = button('q-see', acts, WORDS.see, () => trigger('show', { id }));
  r.edit = button('q-edit', acts, WORDS.edit, () => trigger('edit', { id }));
  r.release = button('q-release', acts, WORDS.release, () => act('release', id));
  r.resume = button('q-resume', acts, '', () => act('resume', id));
  r.retry = button('q-retry', acts, WORDS.retry, () => act('retry', id));
  r.copy = button('q-copy', acts, WORDS.duplicate, () => act('duplicate', id));
  r.cancel = button('q-cancel', acts, WORDS.cancel, () => { if (r.state === 'running') write(r.step, WORDS.stopping); r.stopping = true; act('cancel', id); });
  r.remove = button('q-remove', acts, WORDS.remove, () => act('remove', id));
  grip.addEventListener('pointerdown', event => grab(event, id));
  grip.addEventListener('click', event => event.preventDefault());
  node.addEventListener('keydown', event => {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!by || !(event.altKey || event.target === grip) || r.state !== 'queued') return;
    event.preventDefault();
    step_by(id, by);
  });
  rows.set(id, r);
  return r;
}

function fillRow(r, job) {
  r.state = job.state;
  mark(r.node, 'data-state', job.state);
  write(r.title, job.title);
  r.node.setAttribute('aria-label', job.title);
  const facts = [...job.facts, job.state === 'queued' ? job.expected : ''].filter(Boolean).join(' · ');
  write(r.facts, facts);
  write(r.name, job.task);
  look(r, job);
  const on = job.state === 'running', queued = job.state === 'queued', over = !on && !queued;
  show(r.progress, on);
  if (on) {
    const percent = Math.round(100 * (job.fraction || 0));
    r.fill.style.width = percent + '%';
    mark(r.bar, 'aria-valuenow', percent);
    mark(r.bar, 'aria-label', job.step || '');
    write(r.step, r.stopping ? WORDS.stopping : job.step);
    write(r.elapsed, job.elapsed);
    write(r.left, job.left);
    write(r.memory, job.memory);
  }
  show(r.message, over);
  if (over) write(r.message, job.message ? `${job.label}: ${job.message}` : job.label);
  r.node.classList.toggle('q-held', !!job.held);
  show(r.grip, queued);
  r.grip.title = WORDS.drag;
  r.grip.setAttribute('aria-label', `${WORDS.drag}: ${job.title}`);
  for (const [node, shown, words] of [
    [r.up, queued, WORDS.up], [r.down, queued, WORDS.down], [r.see, on || job.made, on ? WORDS.see : WORDS.cells], [r.edit, queued && job.editable && !job.held, WORDS.edit],
    [r.release, queued && job.held, WORDS.release], [r.resume, over && job.resume, job.resume], [r.retry, over, WORDS.retry],
    [r.copy, queued, WORDS.duplicate], [r.cancel, on || queued, WORDS.cancel], [r.remove, over, WORDS.remove],
  ]) { show(node, shown); mark(node, 'aria-label', `${words}: ${job.title}`); }
  write(r.see, on ? WORDS.see : WORDS.cells);
  write(r.resume, job.resume);
  r.up.title = WORDS.up;
  r.down.title = WORDS.down;
}

/** The latest look of a run as a small film, else its first keyframe, else the name of its task. */
function look(r, job) {
  const source = pictures.get(job.film || job.picture), count = job.film && source ? job.count : 1;
  if (source) { if (r.picture.src !== source) r.picture.src = source; } else r.picture.removeAttribute('src');
  show(r.picture, source);
  show(r.name, !source);
  if (count === r.count) return;
  r.count = count;
  r.film?.cancel();
  r.film = null;
  r.picture.style.width = `${100 * count}%`;
  if (count > 1 && !still.matches) {
    const ends = [{ transform: 'translateX(0)' }, { transform: 'translateX(-100%)' }];
    r.film = r.picture.animate(ends, { duration: 380 * count, iterations: Infinity, easing: `steps(${count})` });
  }
}

// --- order ----------------------------------------------------------------------------------------------------------

function place(list, ids) {
  ids.forEach((id, at) => {
    const { node } = rows.get(id);
    // A row that is moved in the document loses the focus that is in it.
    if (list.children[at] !== node) {
      const focused = node.contains(document.activeElement) ? document.activeElement : null;
      list.insertBefore(node, list.children[at] || null);
      focused?.focus({ preventScroll: true });
    }
  });
}

/** In a drag only the looks change: a node that is moved in the document loses the pointer that holds it. */
function arrange(ids) {
  order = ids;
  if (!drag) place(waiting.list, order);
  order.forEach((id, at) => { rows.get(id).node.style.order = drag ? at : ''; });
  order.forEach((id, at) => {
    const r = rows.get(id);
    r.up.disabled = at === 0;
    r.down.disabled = at === order.length - 1;
  });
}

/** Rows slide to their new places. */
function slide(change) {
  const before = new Map(order.map(id => [id, rows.get(id).node.getBoundingClientRect().top]));
  change();
  if (still.matches) return;
  for (const id of order) {
    const { node } = rows.get(id), by = before.get(id) - node.getBoundingClientRect().top;
    if (by && !(drag && drag.id === id)) node.animate([{ transform: `translateY(${by}px)` }, { transform: 'none' }], { duration: 140, easing: 'ease-out' });
  }
}

function step_by(id, by) {
  const at = order.indexOf(id), to = at + by;
  if (at < 0 || to < 0 || to >= order.length || drag) return;
  const next = [...order];
  next.splice(to, 0, ...next.splice(at, 1));
  const focused = document.activeElement;
  slide(() => arrange(next));
  if (focused && rows.get(id).node.contains(focused)) (focused.disabled ? rows.get(id).grip : focused).focus({ preventScroll: true });
  told.textContent = say('moved', { place: to + 1, count: order.length });
  send();
}

/** One wish at a time: of two on their way, the first could arrive last. */
function send() {
  if (sent) return;
  sent = order.join();
  trigger('reorder', { ids: order });
}

/** A row follows the pointer, and the others make room. */
function grab(event, id) {
  if (event.button || drag) return;
  const { node, grip } = rows.get(id);
  event.preventDefault();
  grip.setPointerCapture(event.pointerId);
  grip.focus({ preventScroll: true });
  const began = [...order], box = node.getBoundingClientRect();
  drag = { id, y: event.clientY, top: box.top, last: event.clientY };
  node.classList.add('q-dragged');
  const follow = () => {
    node.style.transform = 'none';
    node.style.transform = `translateY(${drag.last - drag.y + drag.top - node.getBoundingClientRect().top}px)`;
  };
  const move = e => {
    drag.last = e.clientY;
    const middle = drag.top + (e.clientY - drag.y) + box.height / 2;
    const others = order.filter(other => other !== id);
    let at = others.findIndex(other => { const b = rows.get(other).node.getBoundingClientRect(); return middle < b.top + b.height / 2; });
    if (at < 0) at = others.length;
    const next = [...others.slice(0, at), id, ...others.slice(at)];
    if (next.join() !== order.join()) slide(() => arrange(next));
    follow();
  };
  const end = dropped => {
    for (const [name, call] of Object.entries(calls)) grip.removeEventListener(name, call);
    document.removeEventListener('keydown', escape, true);
    node.classList.remove('q-dragged');
    node.style.transform = '';
    drag = null;
    if (!dropped) arrange(began.filter(other => rows.has(other)));
    else if (order.join() !== began.join()) { told.textContent = say('moved', { place: order.indexOf(id) + 1, count: order.length }); send(); }
    draw();
  };
  const escape = e => { if (e.key === 'Escape') { e.stopPropagation(); end(false); } };
  const calls = { pointermove: move, pointerup: () => end(true), pointercancel: () => end(false) };
  for (const [name, call] of Object.entries(calls)) grip.addEventListener(name, call);
  document.addEventListener('keydown', escape, true);
}

// --- the whole ------------------------------------------------------------------------------------------------------

function draw() {
  const { jobs = [], ended: over = [], paused = '', summary: words = '' } = props.value || {};
  for (const [name, picture] of Object.entries(props.value?.pictures || {})) pictures.set(name, picture);
  const shown = new Set([...jobs, ...over].flatMap(job => [job.film, job.picture]).filter(Boolean));
  for (const name of pictures.keys()) if (!shown.has(name)) pictures.delete(name);
  // What was sent before this page was opened for the first time is asked for again.
  if (shown.size > pictures.size && props.value !== missed) { missed = props.value; act('look'); }
  const all = new Map([...jobs, ...over].map(job => [job.id, job]));
  for (const [id, r] of rows) {
    if (all.has(id) || drag?.id === id) continue;
    r.film?.cancel();
    r.node.remove();
    rows.delete(id);
  }
  for (const job of all.values()) fillRow(rows.get(job.id) || row(job.id), job);
  place(running.list, jobs.filter(j => j.state === 'running').map(j => j.id));
  place(ended.list, over.map(j => j.id));
  const wanted = jobs.filter(j => j.state === 'queued').map(j => j.id);
  // Until the program has heard of a new order, what it says of the old one must not undo it.
  const others = sent && [...wanted].sort().join() !== sent.split(',').sort().join();
  const heard = sent && wanted.join() === sent;
  if (others || heard) sent = null;
  if (heard && !drag && order.join() !== wanted.join()) send();
  if (!drag) arrange(sent ? order : wanted);
  show(running.box, running.list.children.length);
  show(waiting.box, wanted.length);
  show(ended.box, over.length);
  show(nothing, !jobs.length && !over.length);
  write(summary, words);
  show(pause, jobs.length || paused);
  write(pause, paused ? WORDS.go_on : WORDS.pause);
  pause.classList.toggle('q-primary', !!paused);
  if (!wanted.length) asking = false;
  show(clear, wanted.length && !asking);
  write(clear, WORDS.clear);
  show(question, asking);
  show(sure, asking);
  show(keep, asking);
  write(question, wanted.length === 1 ? WORDS.clear_ask_one : say('clear_ask', { count: wanted.length }));
  write(sure, WORDS.clear_yes);
  show(head, !question.hidden || words || !pause.hidden || !clear.hidden);
}
watch('value', draw);
draw();
