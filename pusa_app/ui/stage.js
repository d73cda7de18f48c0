// The place where a video will be: what is going on, the latest look at it, how long it takes.
const root = element.querySelector('.stage');
const make = (tag, name, parent) => { const e = document.createElement(tag); e.className = name; parent.append(e); return e; };
const view = make('div', 'stage-view', root);
const frame = make('div', 'stage-frame', view);
const picture = make('img', 'stage-picture', frame);
picture.alt = '';
const words = make('div', 'stage-words', view);
const title = make('div', 'stage-title', words);
const detail = make('div', 'stage-detail', words);
const bar = make('div', 'stage-bar', root);
const fill = make('div', 'stage-fill', bar);
bar.setAttribute('role', 'progressbar');
bar.setAttribute('aria-valuemin', 0);
bar.setAttribute('aria-valuemax', 100);
const figures = make('div', 'stage-figures', root);
const step = make('span', 'stage-step', figures);
const elapsed = make('span', 'stage-elapsed', figures);
const memory = make('span', 'stage-memory', figures);
const left = make('span', 'stage-left', figures);
// A bar per slot: as high as the noise that the slot has at this step.
const slots = make('div', 'stage-slots', root);
slots.setAttribute('role', 'img');
slots.setAttribute('aria-label', WORDS.noise);
slots.title = WORDS.noise;
// Only the words are read out, and only when they change: seconds would never let a screen reader rest.
words.setAttribute('aria-live', 'polite');

// A preview is a strip of pictures, which plays as a film of so many frames.
let film = null, filmCount = 0;
const still = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
function play(count) {
  if (count === filmCount) return;
  filmCount = count;
  film?.cancel();
  film = null;
  picture.style.width = (count || 1) * 100 + '%';
  if (count > 1 && !still) {
    const ends = [{ transform: 'translateX(0)' }, { transform: 'translateX(-100%)' }];
    film = picture.animate(ends, { duration: 380 * count, iterations: Infinity, easing: `steps(${count})` });
  }
}

const write = (node, text) => { if (node.textContent !== (text || '')) node.textContent = text || ''; };

function drawSlots(noise, kept) {
  slots.hidden = !noise?.length;
  while (slots.children.length > (noise?.length || 0)) slots.lastChild.remove();
  while (slots.children.length < (noise?.length || 0)) make('i', 'stage-level', make('span', 'stage-slot', slots));
  noise?.forEach((level, slot) => {
    slots.children[slot].classList.toggle('stage-kept', !!kept?.includes(slot));
    slots.children[slot].firstChild.style.transform = `scaleY(${level})`;
  });
}

function draw() {
  const v = props.value || {};
  // On a phone the stage is below the form: a run that starts should be seen.
  const busy = state => state === 'running' || state === 'waiting';
  const starts = busy(v.state) && !busy(root.dataset.state);
  if (starts && root.getBoundingClientRect().top > window.innerHeight - 80) root.scrollIntoView({ behavior: 'smooth' });
  root.dataset.state = v.state || 'idle';
  // A look that did not change is not sent again.
  const seen = v.picture || (v.same && picture.hasAttribute('src'));
  if (v.picture) { if (picture.src !== v.picture) picture.src = v.picture; } else if (!seen) picture.removeAttribute('src');
  play(seen ? v.count || 1 : 0);
  if (v.aspect) frame.style.aspectRatio = v.aspect;
  root.classList.toggle('has-picture', !!seen);
  write(title, v.title);
  write(detail, v.detail);
  write(step, v.step);
  write(elapsed, v.elapsed);
  write(left, v.left);
  write(memory, v.memory);
  drawSlots(v.noise, v.kept);
  const percent = Math.round(100 * (v.fraction || 0));
  fill.style.width = percent + '%';
  bar.setAttribute('aria-valuenow', percent);
  bar.setAttribute('aria-label', v.step || v.title || '');
}
watch('value', draw);
draw();
