// Presets: a row of those that fit the task, and behind "All presets" every one with a line on when to use it.
const root = element.querySelector('.gallery');
const words = props.strings;
let open = false, saving = false;
let drawn = '';  // what is shown
const button = buttons();

function draw() {
  const list = (props.value?.presets || []).filter(preset => !props.tasks || props.tasks.includes(preset.task));
  // A button that is made anew under a press loses it, and a title that is being typed goes too.
  const now = JSON.stringify([list, props.value?.problems, props.task, open, saving]);
  if (now === drawn) return;
  drawn = now;
  const focused = root.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  root.replaceChildren();
  const row = make('div', 'gallery-row', root);
  make('span', 'gallery-title', row, words.try_one);
  for (const preset of list.filter(p => p.task === props.task)) {
    const chip = button('gallery-chip', row, preset.title, () => trigger(preset.example ? 'select' : 'apply', { name: preset.name }));
    chip.title = preset.when;
    chip.dataset.key = 'chip ' + preset.name;
  }
  const toggle = button('gallery-more', row, open ? words.fewer : words.all, () => { open = !open; draw(); });
  toggle.setAttribute('aria-expanded', open);
  toggle.dataset.key = 'toggle';
  if (open) drawAll(list);
  for (const problem of props.value?.problems || []) make('p', 'gallery-problem', root, problem).setAttribute('role', 'status');
  if (focused) [...root.querySelectorAll('button, input')].find(e => e.dataset.key === focused)?.focus();
}

function drawAll(list) {
  const all = make('div', 'gallery-all', root);
  const tasks = new Map();
  // Those of the chosen task first.
  for (const preset of [...list].sort((a, b) => (b.task === props.task) - (a.task === props.task))) {
    if (!tasks.has(preset.task)) tasks.set(preset.task, []);
    tasks.get(preset.task).push(preset);
  }
  for (const [, presets] of tasks) {
    const group = make('section', 'gallery-group', all);
    make('h4', 'gallery-task', group, presets[0].task_title);
    for (const preset of presets) {
      const card = make('div', 'gallery-card', group);
      const text = make('div', 'gallery-text', card);
      make('div', 'gallery-name', text, preset.title);
      make('div', 'gallery-when', text, preset.when);
      const acts = make('div', 'gallery-acts', card);
      if (preset.example) button('gallery-act', acts, words.run, () => trigger('select', { name: preset.name })).setAttribute('aria-label', `${words.run}: ${preset.title}`);
      const use = button('gallery-act', acts, words.use, () => trigger('apply', { name: preset.name }));
      use.title = words.use_help;
      use.setAttribute('aria-label', `${words.use}: ${preset.title}`);
      if (preset.own) button('gallery-act', acts, words.remove, () => trigger('delete', { name: preset.name })).setAttribute('aria-label', `${words.remove}: ${preset.title}`);
    }
  }
  const save = make('div', 'gallery-save', all);
  if (!saving) { button('gallery-act', save, words.save, () => { saving = true; draw(); root.querySelector('.gallery-input')?.focus(); }).dataset.key = 'save'; return; }
  const title = field(save, words.title, 60), when = field(save, words.when, 300);
  const send = () => { if (title.value.trim()) { trigger('submit', { title: title.value, when: when.value }); saving = false; draw(); } else title.focus(); };
  for (const input of [title, when]) input.addEventListener('keydown', e => { if (e.key === 'Enter') send(); if (e.key === 'Escape') { saving = false; draw(); } });
  button('gallery-act', save, words.confirm, send);
}

function field(parent, label, most) {
  const input = make('input', 'gallery-input', parent);
  input.maxLength = most;
  input.placeholder = label;
  input.setAttribute('aria-label', label);
  return input;
}
watch(['value', 'task', 'tasks'], draw);
draw();
