// Slots in proportion to their frames, a bar of noise in each, seconds above.
const root = element.querySelector('.timeline');
const make = (tag, name, parent, text) => {
  const e = document.createElement(tag);
  e.className = name;
  if (text != null) e.textContent = text;
  parent.append(e);
  return e;
};
const number = x => (Math.round(x * 100) / 100).toString();

function draw() {
  const v = props.value;
  root.replaceChildren();
  if (!v || !v.slots) return;
  const head = make('div', 'tl-head', root);
  make('span', 'tl-name', head, 'Timeline');
  make('span', 'tl-facts', head, `${v.frames} frames, ${v.slots.length} slots, ${v.seconds.toFixed(1)} s at ${number(v.fps)} fps`);
  const key = make('span', 'tl-key', head);
  make('span', 'tl-swatch tl-swatch-noise', key);
  make('span', '', key, 'made by the model');
  make('span', 'tl-swatch tl-swatch-kept', key);
  make('span', '', key, 'kept from your picture');

  const scroll = make('div', 'tl-scroll', root);
  const lane = make('div', 'tl-lane', scroll);
  lane.setAttribute('role', 'list');
  v.slots.forEach((slot, index) => {
    const frames = slot.last - slot.first + 1;
    const box = make('div', 'tl-slot', lane);
    box.setAttribute('role', 'listitem');
    // The first slot holds one frame; it keeps a width that a picture fits into.
    box.style.flexGrow = frames;
    const range = frames === 1 ? `frame ${slot.first}` : `frames ${slot.first} to ${slot.last}`;
    box.title = `Slot ${index}: ${range}, noise ${number(slot.noise)}`;
    box.setAttribute('aria-label', box.title);
    const well = make('div', 'tl-well', box);
    if (slot.picture) { const img = make('img', 'tl-picture', well); img.src = slot.picture; img.alt = ''; }
    const noise = make('div', 'tl-noise', well);
    noise.style.height = (100 * slot.noise) + '%';
    make('div', 'tl-value', well, number(slot.noise));
    const foot = make('div', 'tl-foot', box);
    make('span', 'tl-index', foot, index);
    make('span', 'tl-time', foot, (slot.first / v.fps).toFixed(1) + ' s');
  });
}
watch('value', draw);
draw();
