// The videos of this visit, newest first; a click asks for one.
const root = element.querySelector('.history');
const nodes = new Map();

function node(item) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'history-item';
  const frame = document.createElement('span');
  frame.className = 'history-frame';
  const picture = document.createElement('img');
  picture.alt = '';
  frame.append(picture);
  const note = document.createElement('span');
  note.className = 'history-note';
  frame.append(note);
  const title = document.createElement('span');
  title.className = 'history-title';
  button.append(frame, title);
  button.addEventListener('click', () => trigger('select', { job: item.id }));
  return { button, picture, note, title };
}

function draw() {
  const items = props.value || [];
  const alive = new Set(items.map(i => i.id));
  for (const [id, n] of nodes) if (!alive.has(id)) { n.button.remove(); nodes.delete(id); }
  items.forEach((item, at) => {
    if (!nodes.has(item.id)) nodes.set(item.id, node(item));
    const n = nodes.get(item.id);
    if (item.picture) { if (n.picture.src !== item.picture) n.picture.src = item.picture; } else n.picture.removeAttribute('src');
    n.note.textContent = item.note || '';
    n.title.textContent = item.title;
    n.button.title = item.title;
    n.button.setAttribute('aria-current', item.shown ? 'true' : 'false');
    if (root.children[at] !== n.button) root.insertBefore(n.button, root.children[at] || null);
  });
}
watch('value', draw);
draw();
