// The cells of a sweep as small pictures with their labels; a click asks for one, or for all of them together. Of a
// sweep that ended without its grid, those that were made.
const root = element.querySelector('.cells');

function card(parent, label, picture, chosen, cell) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'cell';
  button.setAttribute('aria-pressed', chosen);
  if (picture) {
    const image = document.createElement('img');
    image.src = picture;
    image.alt = '';
    button.append(image);
  }
  const text = document.createElement('span');
  text.textContent = label;
  button.append(text);
  button.addEventListener('click', () => trigger('select', { cell }));
  parent.append(button);
  return button;
}

function draw() {
  const v = props.value || {};
  root.replaceChildren();
  if (!v.cells) return;
  if (v.note) {
    const note = document.createElement('p');
    note.className = 'cells-note';
    note.textContent = v.note;
    root.append(note);
  }
  if (v.all) card(root, v.all, null, v.chosen === -1, -1).classList.add('cell-all');
  for (const c of v.cells) {
    const button = card(root, c.problem ? `${c.label}: ${c.problem}` : c.label, c.picture, v.chosen === c.cell, c.cell);
    button.disabled = !!c.problem;
  }
}
watch('value', draw);
draw();
