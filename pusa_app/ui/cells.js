// The cells of a sweep as small pictures with their labels; a click asks for one, or for all of them together.
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
  card(root, v.all, null, v.chosen === -1, -1);
  v.cells.forEach((c, index) => {
    const button = card(root, c.problem ? `${c.label}: ${c.problem}` : c.label, c.picture, v.chosen === index, index);
    button.disabled = !!c.problem;
  });
}
watch('value', draw);
draw();
