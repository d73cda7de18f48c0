// One video: a large player, all that is known of it, and what can be done with it.
let opened = null, showing = null;

function visit(id, cell = -1) {
  showing = id;
  trigger('show', { id, cell, query: { ...query, limit, asked } });
}
watch('detail', () => {
  const detail = props.detail;
  if (!detail?.id || detail.id !== showing) return;
  const same = opened?.id === detail.id;
  opened = detail;
  drawOne();
  if (!same || view !== 'one') { turn('one'); backAct.focus({ preventScroll: true }); }
});

const oneHead = make('div', 'lib-head', one);
const backAct = button('lib-act lib-quiet', oneHead, WORDS.back, close);
const oneStar = button('lib-star', oneHead, null, () => favour(opened.id));
icon(STAR, oneStar);
oneStar.setAttribute('aria-label', WORDS.star);
const body = make('div', 'lib-body', one);
const left = make('div', 'lib-left', body);
const film = make('video', 'lib-player', left);
Object.assign(film, { controls: true, autoplay: true, muted: true, playsInline: true, loop: true });
const chips = make('div', 'lib-chips', left);
const under = make('div', 'lib-under', left);
const loopLabel = make('label', 'lib-check', under);
const loopBox = make('input', '', loopLabel);
loopBox.type = 'checkbox';
loopBox.checked = true;
make('span', '', loopLabel, WORDS.loop);
loopBox.addEventListener('change', () => { film.loop = loopBox.checked; if (film.ended) film.play(); });

const right = make('div', 'lib-right', body);
const oneTitle = make('h2', 'lib-name', right);
const oneWhen = make('p', 'lib-when', right);
const acts = make('div', 'lib-acts', right);
const target = () => ({ id: opened.id, cell: opened.cell });
button('lib-act lib-main', acts, WORDS.use, () => trigger('use', target()));
const ofOne = [
  button('lib-act', acts, WORDS.frame, () => { film.pause(); trigger('frame', { ...target(), seconds: film.currentTime }); }),
  button('lib-act', acts, WORDS.extend, () => trigger('go_on', { ...target(), task: 'extend' })),
  button('lib-act', acts, WORDS.go_loop, () => trigger('go_on', { ...target(), task: 'loop' })),
];
const saveAct = button('lib-act', acts, WORDS.save_as, () => openSave(saveBox.hidden));
const oneRemove = button('lib-act', acts, '', () => {
  const { id, deleted } = opened;
  close();
  (deleted ? restore : remove)([id]);
});
const saveBox = make('div', 'lib-save', right);
const facts = make('dl', 'lib-list-facts', right);
const recipeBox = make('details', 'lib-recipe', right);
make('summary', '', recipeBox, WORDS.recipe);
const recipeText = make('pre', '', recipeBox);
recipeText.tabIndex = 0;
const copyAct = button('lib-act', recipeBox, WORDS.copy, async () => {
  try { await navigator.clipboard.writeText(opened.recipe); tell(WORDS.copied); } catch { tell(WORDS.not_copied); }
});

// How it is saved.
const chosenKind = options(WORDS.kind, WORDS.kinds), chosenQuality = options(WORDS.quality, WORDS.qualities);
const bareLabel = make('label', 'lib-check', saveBox);
const bareBox = make('input', '', bareLabel);
bareBox.type = 'checkbox';
make('span', '', bareLabel, WORDS.bare);
bareLabel.title = WORDS.bare_help;
const sendSave = button('lib-act lib-main', saveBox, WORDS.save, () => {
  sendSave.disabled = true;
  write(sendSave, WORDS.saving);
  trigger('export', { ...target(), kind: chosenKind(), quality: chosenQuality(), recipe: !bareBox.checked, query: { ...query, limit, asked } });
});
function stopSaving() { sendSave.disabled = false; write(sendSave, WORDS.save); }
function options(label, all) {
  const group = make('div', 'lib-group', saveBox);
  group.setAttribute('role', 'radiogroup');
  group.setAttribute('aria-label', label);
  make('span', 'lib-group-name', group, label);
  const name = `lib-${label}-${Math.random()}`;
  for (const [value, title] of all) {
    const choice = make('label', 'lib-choice', group), input = make('input', '', choice);
    Object.assign(input, { type: 'radio', name, value, checked: value === all[0][0] });
    make('span', '', choice, title);
    input.addEventListener('change', () => drawSave());
  }
  return () => group.querySelector('input:checked').value;
}
function drawSave() {
  // GIFs and frames have no quality to choose, and to become WebM a video is always compressed anew.
  const [, quality] = saveBox.children, kind = chosenKind(), all = [...quality.querySelectorAll('input')];
  quality.hidden = kind === 'frames' || kind === 'gif';
  all[0].parentElement.hidden = kind === 'webm';
  if (kind === 'webm' && all[0].checked) all[1].checked = true;
}
function openSave(open) {
  saveBox.hidden = !open;
  saveAct.setAttribute('aria-expanded', open);
}
watch('file', () => {
  const file = props.file;
  if (!file?.url) return;
  stopSaving();
  const link = make('a', '', null);
  link.href = served(file.url);
  link.download = file.name;
  link.click();
});

function drawStar() { oneStar.setAttribute('aria-pressed', opened.favourite); }
function drawOne() {
  const d = opened;
  const url = served(d.url);
  if (film.getAttribute('src') !== url) film.src = url;
  const poster = pictures.get(d.id);
  if (poster) film.poster = poster; else film.removeAttribute('poster');
  write(oneTitle, d.title || WORDS.no_prompt);
  write(oneWhen, [d.task, when(d.made)].join(' · '));
  for (const act of ofOne) act.hidden = !d.one;
  write(oneRemove, d.deleted ? WORDS.restore : WORDS.delete);
  oneStar.hidden = d.deleted;
  drawStar();
  facts.replaceChildren();
  for (const [name, words] of d.facts) { make('dt', '', facts, name); make('dd', '', facts, words); }
  write(recipeText, d.recipe);
  chips.replaceChildren();
  if (d.chips.length) chip(WORDS.all_cells, -1);
  d.chips.forEach((c, at) => { const b = chip(c.problem ? `${c.label}: ${c.problem}` : c.label, at); b.disabled = !!c.problem; });
  openSave(false);
  stopSaving();
}
function chip(label, cell) {
  const b = button('lib-chip', chips, label, () => visit(opened.id, cell));
  b.setAttribute('aria-pressed', opened.cell === cell);
  return b;
}
function close() {
  film.removeAttribute('src');
  film.load();
  const id = opened?.id;
  opened = showing = null;
  turn('list');
  (nodes.get(id)?.open ?? field).focus({ preventScroll: true });
}
one.addEventListener('keydown', event => { if (event.key === 'Escape') { event.preventDefault(); close(); } });
