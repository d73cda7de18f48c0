// One line beside Generate: what runs and waits, and where what was just asked for stands in the queue.
const root = element.querySelector('.queue-line');
const make = (tag, name) => { const node = document.createElement(tag); node.className = name; root.append(node); return node; };
const added = make('p', 'line-added');
const line = make('p', 'line-facts');
added.setAttribute('role', 'status');
const facts = document.createElement('span');
const link = document.createElement('button');
link.type = 'button';
link.className = 'line-open';
link.textContent = WORDS.open;
link.addEventListener('click', () => trigger('show', {}));
line.append(facts, link);
const write = (node, text) => { if (node.textContent !== (text || '')) node.textContent = text || ''; };

function draw() {
  const v = props.value || {};
  write(added, v.added);
  write(facts, (v.facts || []).join(' · '));
  added.hidden = !v.added;
  line.hidden = !v.facts;
}
watch('value', draw);
draw();
