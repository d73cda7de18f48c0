// All models, what is here of them, and what can be done about that. Rows are kept by model, so that neither a field nor
// a question loses what was typed or chosen while a download moves on.
const root = element.querySelector('.models');
const rows = new Map();
let answered = 0;  // the number of the question that was answered last

const button = buttons('q-button');
const act = (verb, id) => trigger('act', { verb, id });
const link = (node, text, address) => {
  write(node, text);
  if (/^https:\/\//.test(address || '')) { mark(node, 'href', address); } else { node.removeAttribute('href'); }
};
const away = (name, parent) => {
  const node = make('a', name, parent);
  node.target = '_blank';
  node.rel = 'noopener noreferrer';
  return node;
};

// --- the frame ------------------------------------------------------------------------------------------------------

const intro = make('p', 'lead', root, WORDS.intro);
const machine = make('p', 'm-disk', root);
const disk = make('p', 'm-disk', root);
const host = make('p', 'm-host', root, WORDS.host_only);
const verdict = make('p', 'm-verdict', root);
const begin = button('q-primary m-begin', root, '', () => act('download', props.value?.guide?.first));
const list = make('ul', 'm-list', root);
list.setAttribute('aria-label', WORDS.title);

const field = (parent, label, node) => {
  const box = make('label', 'm-field', parent);
  make('span', 'm-label', box, label);
  box.append(node);
  return node;
};
/** A part of the page below the rows: its title, its help, and a form. */
const section = (title, words) => {
  const node = make('section', 'm-section', root);
  make('h3', 'm-title', node, title);
  const help = make('p', 'm-help', node, words);
  return { node, help, form: make('form', 'm-form', node) };
};
const typed = (form, label, example, type = 'text') =>
  Object.assign(field(form, label, make('input', 'm-input m-path')), { type, spellcheck: false, placeholder: example });
const sends = (form, words) => Object.assign(make('button', 'q-button', form, words), { type: 'submit' });

const { node: hub, form: hub_form } = section(WORDS.hub, WORDS.hub_help);
const lora = typed(hub_form, WORDS.hub_field, WORDS.hub_example);
const get_lora = sends(hub_form, WORDS.hub_get);
const hub_failed = make('p', 'm-message', hub);
hub_failed.setAttribute('role', 'alert');
const PATIENCE = 90000;  // ms; the hub is given a minute
let asked_for = '', looking = 0, looked;  // the timer that gives up, and the number of the last answer
const look = on => {
  clearTimeout(looking);
  looking = on ? setTimeout(look, PATIENCE) : 0;
  get_lora.disabled = !!looking;
  write(get_lora, looking ? WORDS.hub_looking : WORDS.hub_get);
};
hub_form.addEventListener('submit', event => {
  event.preventDefault();
  if (looking) return;
  asked_for = lora.value;
  look(true);
  trigger('hub', { place: lora.value });
});

const { node: own, form } = section(WORDS.own, WORDS.own_help);
const path = typed(form, WORDS.path, WORDS.path_example);
const which = field(form, WORDS.which, make('select', 'm-input'));
sends(form, WORDS.use);
form.addEventListener('submit', event => {
  event.preventDefault();
  // Gradio takes what is called a path for a file of its own.
  trigger('add', { place: path.value, id: which.value });
});

const { node: access, help: token_help, form: token_form } = section(WORDS.token, '');
const token = typed(token_form, WORDS.token_field, 'hf_…', 'password');
token.autocomplete = 'off';
sends(token_form, WORDS.token_keep);
const drop = button('', token_form, WORDS.token_drop, () => trigger('token', { token: '' }));
token_form.addEventListener('submit', event => {
  event.preventDefault();
  if (!token.value.trim()) return;
  trigger('token', { token: token.value });
  token.value = '';  // it is never shown again
});

// --- a row ----------------------------------------------------------------------------------------------------------

function row(id) {
  const node = make('li', 'm-row');
  node.dataset.id = id;
  const head = make('div', 'm-head', node);
  const title = make('span', 'm-name', head);
  const notes = make('span', 'm-notes', head);
  const chip = make('span', 'm-chip', head);
  const summary = make('p', 'm-summary', node);
  const facts = make('p', 'm-facts', node);
  const words = make('span', '', facts), licence = away('m-licence', facts), page = away('m-page', facts);
  const runs = make('p', 'm-runs', node);
  const more = make('details', 'm-more', node);
  const does = make('summary', 'm-does', more);
  const trained = make('p', 'm-trained', more);
  const reasons = make('ul', 'm-reasons', more);
  const how = make('p', 'm-trained', more);
  const where = make('p', 'm-where', node);
  const progress = make('div', 'm-progress', node);
  const bar = make('div', 'q-bar m-bar', progress);
  const fill = make('div', 'q-fill m-fill', bar);
  bar.setAttribute('role', 'progressbar');
  bar.setAttribute('aria-valuemin', 0);
  bar.setAttribute('aria-valuemax', 100);
  const figures = make('p', 'm-figures', progress);
  const message = make('p', 'm-message', node);
  message.setAttribute('role', 'alert');
  const acts = make('div', 'm-acts', node);
  const question = make('div', 'm-question', node);
  const asked = make('p', 'm-asked', question);
  const sure = button('m-sure', question, '', () => { answered = props.value?.asked?.at; act('remove', id); draw(); });
  const keep = button('m-keep', question, WORDS.keep, () => { answered = props.value?.asked?.at; draw(); acts.querySelector('button')?.focus(); });
  const r = {
    node, title, notes, chip, summary, words, licence, page, facts, runs, more, does, trained, reasons, how, where, progress, bar, fill,
    figures, message, acts, question, asked, sure, keep, buttons: new Map(), told: '', open: false,
  };
  rows.set(id, r);
  return r;
}

function fillRow(r, model, value) {
  mark(r.node, 'data-state', model.state);
  r.node.setAttribute('aria-label', model.title);
  write(r.title, model.title);
  write(r.notes, (model.notes || []).join(' · '));
  show(r.notes, (model.notes || []).length);
  write(r.chip, model.chip);
  write(r.summary, model.summary);
  show(r.summary, model.summary);
  const facts = [...(model.facts || []), model.size].filter(Boolean).join(' · ');
  write(r.words, facts);
  link(r.licence, model.licence?.name, model.licence?.link);
  show(r.licence, model.licence?.name);
  link(r.page, WORDS.page, model.page);
  show(r.page, model.page);
  write(r.does, model.does ? `${WORDS.does} ${model.does}` : WORDS.about);
  show(r.more, model.does || model.trained);
  write(r.runs, model.runs);
  show(r.runs, model.runs);
  write(r.how, model.how);
  show(r.how, model.how);
  write(r.trained, model.trained ? `${WORDS.trained} ${model.trained}` : '');
  show(r.trained, model.trained);
  const reasons = (model.not || []).map(one => `${one.tasks}: ${one.reason}`);
  if (r.told !== reasons.join()) {
    r.told = reasons.join();
    r.reasons.replaceChildren(...reasons.map(text => make('li', '', null, text)));
  }
  write(r.where, (model.where || []).join(', '));
  show(r.where, (model.where || []).length);
  const moving = model.state === 'busy', figures = model.figures || [];
  show(r.progress, figures.length);
  write(r.figures, figures.join(' · '));
  r.bar.classList.toggle('m-unknown', moving && model.fraction == null);
  if (model.fraction == null) r.bar.removeAttribute('aria-valuenow');
  else mark(r.bar, 'aria-valuenow', Math.floor(100 * model.fraction));
  mark(r.bar, 'aria-label', `${WORDS.progress}: ${model.title}`);
  r.fill.style.width = model.fraction == null ? '' : `${100 * model.fraction}%`;
  write(r.message, model.message);
  show(r.message, model.message);
  const question = value.asked?.id === model.id && value.asked.at !== answered ? value.asked.words : '';
  write(r.asked, question || r.asked.textContent);
  if (question) write(r.sure, value.asked.sure);
  show(r.question, question);
  if (question && !r.open) r.keep.focus();
  r.open = !!question;
  const can = new Map(question ? [] : model.can || []);
  for (const [verb, node] of r.buttons) show(node, can.has(verb));
  for (const [verb, words] of can) {
    if (!r.buttons.has(verb)) {
      r.buttons.set(verb, button(`m-${verb}`, r.acts, words, () => act(verb, model.id)));
    }
    const node = r.buttons.get(verb);
    node.classList.toggle('q-primary', verb === 'download' && model.state === 'partial');
    write(node, words);
    mark(node, 'aria-label', `${words}: ${model.title}`);
  }
  show(r.acts, can.size);
}

function draw() {
  const value = props.value || {};
  const models = value.models || [];
  write(machine, value.guide?.machine);
  show(machine, value.guide);
  write(verdict, value.guide?.verdict);
  show(verdict, value.guide?.verdict);
  const first = models.find(model => model.id === value.guide?.first);
  const get = (first?.can || []).find(([verb]) => verb === 'download');
  write(begin, get?.[1]);
  if (get) mark(begin, 'aria-label', `${get[1]}: ${first.title}`);
  show(begin, get);
  write(disk, value.disk);
  show(disk, value.disk);
  show(host, value.models && !value.may);
  for (const part of [hub, own, access]) show(part, value.may);
  if (value.looked && value.looked !== looked) {
    looked = value.looked;
    look(false);
  }
  write(hub_failed, value.failed);
  show(hub_failed, value.failed);
  // What was asked for is on the list now: the field is for the next.
  if (asked_for && models.some(model => model.state === 'busy' && !rows.has(model.id)) && lora.value === asked_for) lora.value = asked_for = '';
  for (const [id, r] of rows) if (!models.some(model => model.id === id)) { r.node.remove(); rows.delete(id); }
  models.forEach((model, place) => {
    const r = rows.get(model.id) || row(model.id);
    fillRow(r, model, value);
    if (list.children[place] !== r.node) list.insertBefore(r.node, list.children[place] || null);
  });
  const ids = value.ids || [];
  if (which.options.length !== ids.length) {
    const chosen = which.value;
    which.replaceChildren(...ids.map(([id, title]) => Object.assign(make('option', '', null, title), { value: id })));
    which.value = chosen;
  }
  write(token_help, value.token ? WORDS.token_there : WORDS.token_help);
  show(drop, value.token);
}

// --- the clock ------------------------------------------------------------------------------------------------------

let seen = false;
new IntersectionObserver(entries => {
  const now = entries[entries.length - 1].isIntersecting;
  if (now && !seen) trigger('tick', {});
  seen = now;
}).observe(root);
setInterval(() => {
  if (!element.isConnected) return;
  // What is done is told to the form too, so the clock goes on where the page is not looked at.
  if (props.value?.active && !document.hidden) trigger('tick', {});
}, 1000);
watch('value', draw);
draw();
