// The chapter in front of others: making nodes and changing only what differs. Texts go into textContent alone: what a
// user wrote must never be read as HTML.
const make = (tag, name, parent, text) => {
  const node = document.createElement(tag);
  node.className = name;
  if (text != null) node.textContent = text;
  if (tag === 'button') node.type = 'button';
  parent?.append(node);
  return node;
};
/** What makes the buttons of a part of the page; `look`: a class that they all have. */
const buttons = look => (name, parent, text, press) => {
  const node = make('button', look ? `${look} ${name}` : name, parent, text);
  node.addEventListener('click', press);
  return node;
};
const write = (node, text) => { if (node.textContent !== (text || '')) node.textContent = text || ''; };
const show = (node, shown) => { if (node.hidden === !!shown) node.hidden = !shown; };
const mark = (node, name, value) => { if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value); };
/** `words` with their {names} filled in. */
const filled = (words, values) => words.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
