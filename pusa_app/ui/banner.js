// After the program ended in the midst of something: what is left of it, and whether to go on. "Not now" is remembered
// in this tab, for these videos.
const root = element.firstElementChild;
const KEY = 'pusa-not-now';
const read = () => { try { return sessionStorage.getItem(KEY); } catch { return null; } };
const write = value => { try { sessionStorage.setItem(KEY, value); } catch { /* it lasts until the next look */ } };
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  node.className = name;
  node.textContent = text;
  root.append(node);
  return node;
};
root.classList.add('resume');
root.setAttribute('role', 'status');
const words = make('span', 'resume-words', '');
const go = make('button', 'q-button q-primary resume-go', '');
const later = make('button', 'q-button resume-later', WORDS.later);
let dismissed = null;
go.type = later.type = 'button';
go.addEventListener('click', () => { go.disabled = true; trigger('act', { verb: 'resume_all', id: '' }); });
later.addEventListener('click', () => { dismissed = props.value?.of; write(dismissed); document.dispatchEvent(new Event('pusa-not-now')); });

function draw() {
  const v = props.value || {};
  go.disabled = false;
  root.hidden = !v.words || v.of === dismissed || v.of === read();
  if (root.hidden) return;
  words.textContent = v.words;
  go.textContent = v.button;
}
document.addEventListener('pusa-not-now', () => { dismissed = props.value?.of; draw(); });
watch('value', draw);
draw();
