// What the form holds is kept for this tab in the browser, and comes back when the page is loaded again: by the visitor,
// or by itself when the program was started anew. The prompt is put back here and at once, all else by Python, which
// looks at it first. Until that is answered only the prompt can be written: whatever else was done would be undone.
const KEY = 'pusa-form', REST = 300, PATIENCE = 30000;  // milliseconds
let usual = null;      // what a page holds that nobody touched
let held = null;       // what it holds now
let restoring = false;
let lost = false;      // whether the draft could not be put back: it stays as it is until something is changed here
let resting = 0, sleeping = [];

// A browser may keep nothing, as in some private windows, and not everything: then this page has no memory.
const read = () => { try { return sessionStorage.getItem(KEY); } catch { return null; } };
function write(text) {
  try {
    if (text === usual) sessionStorage.removeItem(KEY); else sessionStorage.setItem(KEY, text);
  } catch { /* it stays as it was */ }
}

/** The values of the form as JSON; pictures of the timeline are made again. */
function asText(values) {
  const now = Object.fromEntries(WORDS.names.map((name, at) => [name, values[at]]));
  const { timeline } = now;
  const bare = ({ thumbs, file, ...k }) => ({ ...k, file: { path: file.path } });
  return JSON.stringify({
    ...now,
    task: now.task?.task,
    negative: now.negative ?? '',  // nothing, as long as its part of the form was not open
    timeline: timeline && { ...timeline, keyframes: timeline.keyframes.map(bare) },
    ...Object.fromEntries(WORDS.files.map(name => [name, now[name] && { path: (now[name].video ?? now[name]).path }])),
  });
}

document.addEventListener('pusa-form', event => {
  if (usual === null && !isThere()) return;
  const text = asText(event.detail);
  if (usual === null) { usual = held = text; begin(); }
  if (restoring) return;
  tell('ready');
  if (text === held) return;
  const before = held;
  held = text;
  if (lost && before === null) return;
  lost = false;
  // Fields change one after the other, and those in a part that is closed say nothing: ask once more when it is quiet.
  clearTimeout(resting);
  resting = setTimeout(() => { write(held); trigger('hold', {}); }, REST);
});
window.addEventListener('pagehide', () => { if (held !== null && !restoring && !lost) write(held); });

// --- after a reload -------------------------------------------------------------------------------------------------

const prompt = () => document.querySelector('#prompt textarea');
const isThere = () => prompt() && document.querySelector('.task');
// Whoever waits for the page can see how far it is: restoring, or ready, when every change is heard.
const tell = state => { document.body.dataset.draft = state; };

function begin() {
  const form = read();
  if (!form || form === usual) return;
  let words;
  try { words = JSON.parse(form).prompt; } catch { return; }
  const field = prompt();
  if (field && !field.value && typeof words === 'string' && words) {
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(field, words);
    field.dispatchEvent(new Event('input', { bubbles: true }));
  }
  restoring = true;
  tell('restoring');
  sleep();
  trigger('restore', { form });
  setTimeout(giveUp, PATIENCE);
}

/** Everything of the page but the prompt waits for the answer. */
function sleep() {
  document.body.classList.add('pusa-restoring');
  const whole = document.querySelector('.gradio-container');
  for (let node = document.querySelector('#prompt'); node && node !== whole && node.parentElement; node = node.parentElement) {
    sleeping.push(...[...node.parentElement.children].filter(one => one !== node && !one.inert));
  }
  for (const node of sleeping) node.inert = true;
}

function awake(well) {
  if (!restoring) return;
  restoring = false;
  lost = !well;
  held = null;
  document.body.classList.remove('pusa-restoring');
  for (const node of sleeping) node.inert = false;
  sleeping = [];
  // What it holds after the answer counts when it is quiet; without one, what it holds already.
  if (lost) look(); else resting = setTimeout(look, REST);
}

function giveUp() {
  if (!restoring) return;
  trigger('stop', { stop: true });
  awake(false);
}

document.addEventListener('pusa-restored', event => awake(event.detail));
// A video that is dropped fills the form, and is what counts then.
document.addEventListener('drop', event => {
  if ([...(event.dataTransfer?.types ?? [])].includes('Files')) giveUp();
}, { capture: true });
document.addEventListener('keydown', event => {
  if (restoring && event.key === 'Enter' && event.shiftKey) { event.preventDefault(); event.stopPropagation(); }
}, { capture: true });

/** Ask what the page holds, as soon as its parts are there, until it is heard. */
function look() {
  if (held !== null) return;
  if (isThere()) trigger('hold', {});
  setTimeout(look, 200);
}
setTimeout(look, 0);
