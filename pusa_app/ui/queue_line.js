// One line beside Generate: what runs and waits, and where what was just asked for stands in the queue.
const root = element.querySelector('.queue-line');
const added = make('p', 'line-added', root);
const line = make('p', 'line-facts', root);
added.setAttribute('role', 'status');
const facts = make('span', '', line);
buttons()('line-open', line, WORDS.open, () => trigger('show', {}));

function draw() {
  const v = props.value || {};
  write(added, v.added);
  write(facts, (v.facts || []).join(' · '));
  added.hidden = !v.added;
  line.hidden = !v.facts;
}
watch('value', draw);
draw();
