// A page that is just enough for the timeline editor's scripts: no layout and no styles, and 700 pixels for all slots.
// `start` gives an editor, what it told Python, and hands to use it: a pointer and keys.

class Names {
  constructor() { this.all = new Set(); }
  add(...names) { names.forEach(name => this.all.add(name)); }
  remove(...names) { names.forEach(name => this.all.delete(name)); }
  contains(name) { return this.all.has(name); }
  toggle(name, on = !this.all.has(name)) { this[on ? 'add' : 'remove'](name); return on; }
}

class Node {
  constructor(tag) {
    Object.assign(this, {
      tag, childNodes: [], dataset: {}, attributes: {}, listeners: {}, parentNode: null, text: '',
      classList: new Names(), style: { setProperty() {} }, value: '', hidden: false, tabIndex: -1,
      clientWidth: 700, scrollLeft: 0, naturalWidth: 100, naturalHeight: 100, isConnected: true,
    });
  }

  get className() { return [...this.classList.all].join(' '); }
  set className(names) { this.classList.all = new Set(names.split(/\s+/).filter(Boolean)); }
  get children() { return this.childNodes; }
  get firstChild() { return this.childNodes[0]; }
  get textContent() { return this.text + this.childNodes.map(node => node.textContent).join(' '); }
  set textContent(text) { this.text = String(text); this.childNodes = []; }

  setAttribute(name, text) { this.attributes[name] = String(text); if (name === 'class') this.className = text; }
  getAttribute(name) { return this.attributes[name] ?? null; }
  removeAttribute(name) { delete this.attributes[name]; }

  append(...nodes) { for (const node of nodes) this.insertBefore(node, null); }
  insertBefore(node, before) {
    node.remove();
    node.parentNode = this;
    const at = this.childNodes.indexOf(before);
    this.childNodes.splice(at < 0 ? this.childNodes.length : at, 0, node);
  }
  replaceChildren(...nodes) { for (const node of [...this.childNodes]) node.remove(); this.append(...nodes); }
  remove() {
    if (!this.parentNode) return;
    if (this.contains(document.activeElement)) document.activeElement = null;  // with no `change`, as in Firefox
    this.parentNode.childNodes.splice(this.parentNode.childNodes.indexOf(this), 1);
    this.parentNode = null;
  }

  contains(node) { for (; node; node = node.parentNode) if (node === this) return true; return false; }
  matches(selector) {
    return selector.split(',').map(one => one.trim()).some(one => {
      const [, name, text] = /^\[data-(\w+)="(.*)"\]$/.exec(one) ?? [];
      if (name) return this.dataset[name] === text;
      return one[0] === '.' ? this.classList.contains(one.slice(1)) : this.tag === one;
    });
  }
  closest(selector) { return this.matches(selector) ? this : this.parentNode?.closest(selector) ?? null; }
  querySelectorAll(selector) {
    const within = node => [...(node.matches(selector) ? [node] : []), ...node.querySelectorAll(selector)];
    return this.childNodes.flatMap(within);
  }
  querySelector(selector) { return this.querySelectorAll(selector)[0] ?? null; }

  addEventListener(type, listener, { capture = false } = {}) {
    (this.listeners[type] ??= []).push([listener, capture]);
  }
  removeEventListener() {}
  dispatch(type, more = {}) {
    const way = [];
    for (let node = this; node; node = node.parentNode) way.push(node);
    let stopped = false;
    const event = { type, target: this, button: 0, pointerId: 1, clientX: 0, clientY: 0, preventDefault() {},
      stopPropagation() { stopped = true; }, ...more };
    for (const capture of [true, false]) {
      for (const node of capture ? [...way].reverse() : way) {
        for (const [listener, early] of node.listeners[type] ?? []) if (early === capture && !stopped) listener(event);
      }
    }
  }
  dispatchEvent({ type }) { this.dispatch(type); }
  click() { this.dispatch('click'); }
  focus() {
    if (document.activeElement === this) return;
    const before = document.activeElement;
    document.activeElement = this;
    if (before?.dataset.dirty === 'yes') before.dispatch('change');
    this.dispatch('focusin');
  }
  getBoundingClientRect() { return { left: 0, top: 0, right: 700, bottom: 240, width: 700, height: 240 }; }
  setPointerCapture() {}
  releasePointerCapture() {}
  hasPointerCapture() { return false; }
}

globalThis.document = Object.assign(new Node('document'), {
  createElement: tag => new Node(tag), createElementNS: (_, tag) => new Node(tag), activeElement: null,
});
globalThis.window = { matchMedia: () => ({ matches: false }) };
globalThis.location = { origin: 'http://here', href: 'http://here/' };
globalThis.requestAnimationFrame = () => 0;
globalThis.cancelAnimationFrame = () => {};
globalThis.setInterval = () => 0;
globalThis.ResizeObserver = class { observe() {} };

const GRID = { num_frames: 37, temporal_stride: 6, fps: 12 };
const image = (id, slot, more = {}) => ({
  id, slot, span: 1, noise: [0.2], kind: 'image', start: 0, begin: 0, end: null, fit: 'crop', focus: [0.5, 0.5],
  file: { path: `/c/${id}.png`, url: '' }, name: `${id}.png`, frames: 1, thumbs: [], ...more,
});
const clip = (id, slot, span, more = {}) => image(id, slot, {
  kind: 'clip', span, noise: Array(span).fill(0), frames: 60,
  file: { path: `/c/${id}.mp4`, url: '' }, name: `${id}.mp4`, ...more,
});
const timeline = (keyframes, grid = {}) => ({ grid: { ...GRID, ...grid }, width: 64, height: 64, keyframes });
const file = (name, type = '', text = '') => ({ name, type, size: 1, text: async () => text });

/** A saved timeline, as the editor writes it. */
function savedFile(keyframes, grid = GRID) {
  const kept = keyframes.map(({ id, thumbs, frames, ...k }) => ({ ...k, file: k.file.path }));
  return file('t.json', 'application/json', JSON.stringify({ pusa_timeline: 1, grid, keyframes: kept, files: {} }));
}

/** What Python says of files: clips last five seconds, all else is a picture. */
let DESCRIBE = async (path, fps) =>
  path.endsWith('.mp4') ? { kind: 'clip', frames: 5 * fps, thumbs: [] } : { kind: 'image', frames: 1, thumbs: [] };

/** server: what else Python answers to the script. */
function start(keyframes, { server = {}, grid = {}, props = {} } = {}) {
  const element = new Node('div'), te = new Node('div'), events = [], watchers = [];
  te.className = 'te';
  element.append(te);
  const given = { value: timeline(keyframes, grid), strings: WORDS, ...props };
  const answers = { describe: (path, fps) => DESCRIBE(path, fps), ...server };
  const upload = async ({ name }) => ({ path: `/c/${name}`, url: '' });
  const watch = (names, then) => watchers.push([[names].flat(), then]);
  const names = ['element', 'props', 'trigger', 'watch', 'server', 'upload', 'DEFAULTS'];
  const defaults = { advice: {}, notice: '', placed: {}, readonly: false, slots_max: 0, new_noise: 0.2 };
  const run = new Function(...names, `${SCRIPT}\nreturn text => eval(text);`)(
    element, given, (name, data) => events.push([name, data]), watch, answers, upload, defaults);
  return Object.assign(run, {
    events, props: given,
    /** As when Python changes props. */
    update(changes) {
      Object.assign(given, changes);
      for (const [names, then] of watchers) if (names.some(name => name in changes)) then();
    },
    /** What the page shows, and what Python was told last: "a@0 b@3". */
    page: () => where(run('value')),
    python: () => where(given.value),
    alert: () => run('alertLine.textContent'),
    notice: () => run('noticeLine.textContent'),
    inspector: () => run('inspector.textContent'),
    card: id => run('nodes').get(id).card,
    field: name => run('inspector').querySelector(`[data-name="${name}"]`),
    button: name => run('root').querySelector(`.te-${name}`),
    type(name, text) {
      const input = this.field(name);
      input.focus();
      input.value = text;
      input.dispatch('input');
    },
    press(node, more = {}) { node.dispatch('pointerdown', more); },
    move(x, y = 0) { run('tracks').dispatch('pointermove', { clientX: x, clientY: y }); },
    release() { run('tracks').dispatch('pointerup'); },
    tap(node, more = {}) { this.press(node, more); this.release(); },
    key(node, key, more = {}) { node.dispatch('keydown', { key, ...more }); },
    /** Tab comes to a keyframe. */
    tab(id) { document.dispatch('keydown', { key: 'Tab' }); this.card(id).focus(); },
  });
}

const inOrder = value => [...value.keyframes].sort((a, b) => a.slot - b.slot);
const where = value => inOrder(value).map(k => `${k.name.split('.')[0]}@${k.slot}`).join(' ');
const soon = () => new Promise(done => setImmediate(done));
