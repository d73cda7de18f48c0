// Two videos side by side, or one over the other with a line between them, in step with one another.
const compare = ids => trigger('compare', { ids, query: { ...query, limit, asked } });

const pairHead = make('div', 'lib-head', pair);
const pairBack = button('lib-act lib-quiet', pairHead, WORDS.back, closePair);
const layout = make('div', 'lib-layout', pairHead);
layout.setAttribute('role', 'group');
const sideAct = button('lib-filter', layout, WORDS.side, () => lay('side'));
const wipeAct = button('lib-filter', layout, WORDS.wipe, () => lay('wipe'));
const stage = make('div', 'lib-stage', pair);
const sides = [0, 1].map(() => {
  const box = make('figure', 'lib-side', stage), video = make('video', '', box), name = make('figcaption', '', box);
  Object.assign(video, { muted: true, playsInline: true, preload: 'auto' });
  return { box, video, name };
});
const [A, B] = sides.map(s => s.video);
const line = make('input', 'lib-line', stage);
Object.assign(line, { type: 'range', min: 0, max: 100, step: 0.5, value: 50 });
line.setAttribute('aria-label', WORDS.wipe_at);
line.addEventListener('input', drawLine);
function drawLine() { stage.style.setProperty('--wipe', `${line.value}%`); }

const deck = make('div', 'lib-deck', pair);
const playAct = button('lib-act', deck, WORDS.play, () => { running ? halt() : run(); });
button('lib-act', deck, '‹', () => step(-1)).setAttribute('aria-label', WORDS.previous);
button('lib-act', deck, '›', () => step(1)).setAttribute('aria-label', WORDS.next);
const scrub = make('input', 'lib-scrub', deck);
Object.assign(scrub, { type: 'range', min: 0, step: 1, value: 0 });
scrub.setAttribute('aria-label', WORDS.scrub);
scrub.addEventListener('input', () => { halt(); seek(Number(scrub.value)); });
const place = make('span', 'lib-place', deck);
const table = make('table', 'lib-differences', pair);

let running = false, ticking = 0, fps = 24;
const lengthOf = v => (Number.isFinite(v.duration) ? v.duration : 0);
const frames = () => Math.max(1, Math.round(Math.max(lengthOf(A), lengthOf(B)) * fps));
const lead = () => (lengthOf(B) > lengthOf(A) ? B : A);
const frameNow = () => Math.min(frames() - 1, Math.floor(lead().currentTime * fps + 0.01));

/** Put a video at a time; half a frame in, so that it shows that frame in every browser. */
function put(video, seconds) {
  const to = Math.min(seconds, Math.max(0, lengthOf(video) - 0.5 / fps));
  if (Math.abs(video.currentTime - to) > 0.001) video.currentTime = to;
}
function seek(frame) {
  for (const v of [A, B]) put(v, (frame + 0.5) / fps);
  drawPlace(frame);
}
function step(by) {
  halt();
  seek((frameNow() + by + frames()) % frames());
}
function run() {
  running = true;
  write(playAct, WORDS.pause);
  if (lead().ended || frameNow() >= frames() - 1) seek(0);
  for (const v of [A, B]) v.play().catch(() => {});
  cancelAnimationFrame(ticking);
  tick();
}
function halt() {
  running = false;
  write(playAct, WORDS.play);
  for (const v of [A, B]) v.pause();
}
function tick() {
  if (!running) return;
  const first = lead(), other = first === A ? B : A;
  if (first.ended) { for (const v of [A, B]) { v.currentTime = 0; v.play().catch(() => {}); } }
  else if (!other.ended && Math.abs(other.currentTime - first.currentTime) > 1.5 / fps) put(other, first.currentTime);
  drawPlace(frameNow());
  if (pair.isConnected) ticking = requestAnimationFrame(tick);
}
function drawPlace(frame) {
  scrub.max = frames() - 1;
  if (Number(scrub.value) !== frame) scrub.value = frame;
  const words = say('frame_of', { frame: frame + 1, frames: frames() });
  write(place, words);
  scrub.setAttribute('aria-valuetext', words);
}
function lay(how) {
  stage.dataset.lay = how;
  line.hidden = how !== 'wipe';
  sideAct.setAttribute('aria-pressed', how === 'side');
  wipeAct.setAttribute('aria-pressed', how === 'wipe');
}

watch('pair', () => {
  const { sides: two, differences } = props.pair || {};
  if (!two) return;
  fps = Math.max(two[0].fps, two[1].fps) || 24;
  two.forEach((d, at) => {
    const { video, name } = sides[at];
    video.src = served(d.url);
    video.onloadedmetadata = () => drawPlace(frameNow());
    write(name, [d.title || WORDS.no_prompt, d.cells ? '' : say('seed', d)].filter(Boolean).join(' · '));
  });
  drawDifferences(two, differences);
  turn('pair');
  pairBack.focus({ preventScroll: true });
  run();
});

function drawDifferences(two, differences) {
  table.replaceChildren();
  const head = make('tr', '', make('thead', '', table));
  for (const words of [WORDS.differs, 'A', 'B']) make('th', '', head, words).scope = 'col';
  const rows = make('tbody', '', table);
  if (!differences.length) { const only = make('td', '', make('tr', '', rows), WORDS.same); only.colSpan = 3; }
  for (const [name, first, second] of differences) {
    const row = make('tr', '', rows);
    make('th', '', row, name).scope = 'row';
    for (const words of [first, second]) make('td', '', row, words || '–');
  }
}
function closePair() {
  halt();
  for (const v of [A, B]) { v.removeAttribute('src'); v.load(); }
  turn('list');
  field.focus({ preventScroll: true });
}
pair.addEventListener('keydown', event => {
  if (event.key === 'Escape') closePair();
  else if (event.target.type === 'range' || event.target.tagName === 'BUTTON') return;
  else if (event.key === ' ') playAct.click();
  else if (event.key === 'ArrowLeft') step(-1);
  else if (event.key === 'ArrowRight') step(1);
  else return;
  event.preventDefault();
});
lay('side');
drawLine();
turn('list');
taken();
