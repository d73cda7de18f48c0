// The first-run guide on Create: closed it is one line, the first click opens the offer, the second gets the model. How
// far that is, it says too. "Not now" is remembered in this browser.
const root = element.firstElementChild;
const KEY = 'pusa-guide';
const read = () => { try { return localStorage.getItem(KEY); } catch { return null; } };
const keep = value => { try { localStorage.setItem(KEY, value); } catch { /* it lasts until the next visit */ } };
let open = false, dismissed = read() === 'later', drawn = '';

const button = buttons('q-button');
const act = (verb, id) => trigger('act', { verb, id });

function later(parent) {
  button('g-later', parent, WORDS.later, () => { dismissed = true; keep('later'); draw(); });
}

function closed(value) {
  make('p', 'g-words', root, value.intro);
  const acts = make('div', 'g-acts', root);
  button('q-primary g-open', acts, WORDS.open, () => { open = true; draw(); root.querySelector('.g-get')?.focus(); });
  later(acts);
}

function offer(one, parent, first) {
  const row = make('section', first ? 'g-first' : 'g-other', parent);
  row.dataset.id = one.id;
  const words = make('div', 'g-text', row);
  make('p', 'g-question', words, one.reason ? `${one.title}: ${one.reason}` : one.words);
  if (one.about) make('p', 'g-soft', words, one.about);
  if (first && one.short) make('p', 'g-soft', row, one.short);
  if (first && one.how) make('p', 'g-soft', row, one.how);
  if (one.licence?.name && first) {
    const line = make('p', 'g-soft', row, `${WORDS.licence} `);
    const link = make('a', '', line, one.licence.name);
    if (/^https:\/\//.test(one.licence.link || '')) { link.href = one.licence.link; link.target = '_blank'; link.rel = 'noopener noreferrer'; }
  }
  if (one.message) make('p', 'g-message', row, one.message).setAttribute('role', 'alert');
  const acts = make('div', 'g-acts', row);
  for (const [verb, words] of one.can || []) {
    const node = button(first ? 'q-primary g-get' : 'g-get', acts, words, () => { node.disabled = true; act(verb, one.id); });
    node.setAttribute('aria-label', `${words}: ${one.title}`);
  }
  return acts;
}

function opened(value) {
  const [first, ...others] = value.offers;
  later(offer(first, root, true));
  if (!others.length) return;
  const more = make('details', 'g-more', root);
  make('summary', '', more, WORDS.others);
  for (const one of others) offer(one, more, false);
}

function moving(one) {
  const here = one.state === 'here', busy = one.state === 'busy';
  make('p', 'g-question', root, (here ? WORDS.ready : busy ? WORDS.busy : WORDS.stopped).replace('{title}', one.title));
  if (!here) {
    const bar = make('div', 'q-bar m-bar', root);
    const fill = make('div', 'q-fill m-fill', bar);
    bar.classList.toggle('m-unknown', busy && one.fraction == null);
    fill.style.width = one.fraction == null ? '' : `${100 * one.fraction}%`;
    make('p', 'g-soft', root, (one.figures || []).join(' · '));
  }
  if (one.message) make('p', 'g-message', root, one.message).setAttribute('role', 'alert');
  const acts = make('div', 'g-acts', root);
  if (here) button('q-primary g-use', acts, WORDS.use, () => act('use', one.id));
  else for (const [verb, words] of one.can || []) button(`g-${verb}`, acts, words, () => act(verb, one.id));
  if (!here) button('g-models', acts, WORDS.models, () => act('models', one.id));
  if (!here && !busy) later(acts);
}

function draw() {
  const value = props.value || {};
  const one = (value.offers || []).find(offer => offer.id === value.moving);
  // What stands still can be put off like the offer of it; what comes, or came, is told.
  root.hidden = !value.show || (dismissed && !['busy', 'here'].includes(one?.state));
  // What is seen already is not made anew: a button would lose the focus, and a list would close.
  const now = root.hidden ? '' : JSON.stringify([value, open]);
  if (now === drawn) return;
  drawn = now;
  const more = root.querySelector('details')?.open;
  root.replaceChildren();
  if (root.hidden) return;
  make('h2', 'g-title', root, WORDS.title);
  if (one) moving(one);
  else if (open) opened(value);
  else closed(value);
  if (more && root.querySelector('details')) root.querySelector('details').open = true;
}

setInterval(() => {
  const moves = (props.value?.offers || []).some(one => one.state === 'busy');
  // Where it is not seen the page Models asks, or nobody needs to know.
  if (moves && root.offsetParent !== null && !document.hidden) trigger('tick', {});
}, 1000);
root.setAttribute('role', 'region');
root.setAttribute('aria-label', WORDS.title);
watch('value', draw);
draw();
