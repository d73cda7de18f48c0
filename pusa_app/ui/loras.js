// LoRAs of the chosen model: a row with a strength for each, and a choice of more. The value is {model, chosen: [{name,
// strength, expert}]}; what may be chosen is asked for when a model is seen for the first time.
const root = element.firstElementChild;
const LEAST = -10, MOST = 10;
let asked = '', drawn = '';

const button = buttons();
const value = () => props.value || {};
const chosen = () => value().chosen || [];
const known = () => (props.of === value().model ? props.known || [] : []);
const about = name => known().find(one => one.name === name);
const short = name => name.split(/[/\\]/).pop();

function change(list) {
  props.value = { ...value(), chosen: list };
  draw();
  trigger('input', {});
}
function set(name, strength) {
  const list = chosen().map(one => (one.name === name ? { ...one, strength } : one));
  if (list.some(one => one.name === name)) return change(list);
  change([...list, { name, strength, expert: null }]);
}
const drop = name => change(chosen().filter(one => one.name !== name));
const asNumber = text => { const n = Number(String(text).replace(',', '.')); return text !== '' && Number.isFinite(n) ? Math.min(MOST, Math.max(LEAST, n)) : null; };

function row(name, strength, one) {
  const item = make('li', 'lora', root.querySelector('.lora-list'));
  item.dataset.name = name;
  const title = one?.title || short(name);
  make('span', 'lora-title', item, title).title = name;
  const slider = make('input', 'lora-range', item);
  slider.type = 'range';
  slider.min = Math.min(0, strength); slider.max = Math.max(2, strength); slider.step = 0.05;
  slider.value = strength;
  const field = make('input', 'lora-number', item);
  field.type = 'number'; field.min = LEAST; field.max = MOST; field.step = 0.05;
  field.value = strength;
  for (const [node, words] of [[slider, WORDS.strength], [field, WORDS.strength_field]]) node.setAttribute('aria-label', `${words}: ${title}`);
  slider.addEventListener('input', () => { field.value = slider.value; });
  slider.addEventListener('change', () => set(name, Number(slider.value)));
  field.addEventListener('change', () => {
    const n = asNumber(field.value);
    if (n == null) field.value = strength; else set(name, n);
  });
  if (one?.own) make('span', 'lora-own', item, WORDS.own);
  else button('lora-drop', item, '×', () => drop(name)).setAttribute('aria-label', `${WORDS.drop}: ${title}`);
  const note = [one?.note, one?.low != null && one?.high != null ? WORDS.range.replace('{low}', one.low).replace('{high}', one.high) : ''].filter(Boolean);
  if (note.length) make('p', 'lora-note', item, note.join(' '));
  if (one?.steps) {
    const words = (one.guidance == null ? WORDS.distilled_steps : WORDS.distilled).replace('{steps}', one.steps).replace('{guidance}', one.guidance);
    button('lora-distilled', item, words, () => trigger('distilled', { name }));
  }
}

function draw() {
  const on = chosen(), all = known();
  const now = JSON.stringify([value(), props.known, props.of, props.may]);
  if (now === drawn) return;
  drawn = now;
  const focused = root.contains(document.activeElement) ? document.activeElement.getAttribute('aria-label') : null;
  const typed = root.querySelector('.lora-place')?.value || '';
  root.replaceChildren();
  make('span', 'lora-head', root, WORDS.title);
  make('p', 'lora-note', root, WORDS.help);
  make('ul', 'lora-list', root).setAttribute('aria-label', WORDS.title);
  const strength = name => on.find(one => one.name === name)?.strength;
  for (const one of all.filter(one => one.own)) row(one.name, strength(one.name) ?? one.strength, one);
  for (const one of on) if (!about(one.name)?.own) row(one.name, one.strength, about(one.name));
  const more = all.filter(one => !one.own && strength(one.name) == null);
  const add = make('div', 'lora-add', root);
  if (more.length) {
    const list = make('select', 'lora-choice', add);
    list.setAttribute('aria-label', WORDS.add);
    list.append(Object.assign(document.createElement('option'), { value: '', textContent: WORDS.add }));
    for (const one of more) list.append(Object.assign(document.createElement('option'), { value: one.name, textContent: one.title }));
    list.addEventListener('change', () => { if (list.value) set(list.value, about(list.value).strength); });
  }
  if (props.may) {
    const form = make('form', 'lora-form', add);
    const place = make('input', 'lora-place', form);
    place.type = 'text'; place.spellcheck = false; place.placeholder = WORDS.place; place.value = typed;
    place.setAttribute('aria-label', WORDS.place);
    make('button', 'lora-use', form, WORDS.use).type = 'submit';
    form.addEventListener('submit', event => { event.preventDefault(); trigger('add', { place: place.value }); });
  } else if (!more.length && !on.length) make('p', 'lora-note', add, WORDS.none);
  if (focused) [...root.querySelectorAll('[aria-label]')].find(node => node.getAttribute('aria-label') === focused)?.focus();
}

function look() {
  draw();
  if (!value().model || asked === value().model) return;
  asked = value().model;
  trigger('look', {});
}
// What is here changes elsewhere: on the page Models, or in the folder.
let seen = false;
new IntersectionObserver(entries => {
  const now = entries[entries.length - 1].isIntersecting;
  if (now && !seen) { asked = value().model; trigger('look', {}); }
  seen = now;
}).observe(root);
watch('value', look);
watch(['known', 'of', 'may'], draw);
draw();
setTimeout(look, 0);
