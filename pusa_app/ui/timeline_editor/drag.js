// Pointers: mouse, pen and finger. All that a move needs to know of the page is measured when the pointer goes down.

const THRESHOLD = 3;   // pixels that a press may tremble without being a drag
const EDGE = 36;       // pixels from the border where the timeline begins to scroll

let drag = null;
let scrolled = 0;      // scroll.scrollLeft, kept so that no move has to ask for it
let resting = [];      // what goes on when nothing is dragged any more
scroll.addEventListener('scroll', () => { scrolled = scroll.scrollLeft; }, { passive: true });

/** Whether something is dragged, here or in the inspector: `value` is then what nobody was told of yet. */
const dragging = () => !!(drag || abandon);

/** A promise of the end of a drag, which ends with what it began with. All that comes by itself waits for it. */
const rest = () => dragging() ? new Promise(go => resting.push(go)) : Promise.resolve();

function rested() { for (const go of resting.splice(0)) go(); }

tracks.addEventListener('pointerdown', event => {
  if (event.button || dragging() || !value) return;
  enterTyped();
  const key = event.target.closest('.te-key');
  const k = key && value.keyframes.find(x => x.id === key.dataset.id);
  if (!k) { pressSlot(event); return; }
  event.preventDefault();
  const handle = event.target.closest('.te-dot, .te-level');
  pressKey(event, k, handle);
  if (!prop('readonly') && chosen.has(k.id)) startDrag(event, k, handle);
});

function pressSlot(event) {
  const cell = event.target.closest('.te-cell');
  if (!cell) return;
  choose([], Number(cell.dataset.slot));
  cell.focus({ preventScroll: true });
}

/** Choose what is pressed. One of several chosen keyframes keeps the others, since they may all be dragged. */
function pressKey(event, k, handle) {
  if (event.shiftKey || several) toggle(k.id);
  else if (!chosen.has(k.id)) choose([k.id]);
  const node = nodes.get(k.id);
  (handle?.classList.contains('te-dot') ? handle : node.card).focus({ preventScroll: true });
}

function startDrag(event, k, handle) {
  const rect = scroll.getBoundingClientRect();
  drag = {
    kind: handle ? 'noise' : k.kind === 'clip' ? event.target.dataset.end ?? 'move' : 'move',
    k, base: value, pointer: event.pointerId, x: event.clientX, y: event.clientY, scrolled, last: event, moved: false,
    index: handle?.classList.contains('te-dot') ? Number(handle.dataset.index) : null,
    grabbed: handle ? Number(handle.dataset.index) : 0,
    left: rect.left, right: rect.right, frame: 0, more: event.shiftKey || several,
  };
  tracks.setPointerCapture(event.pointerId);
}

tracks.addEventListener('pointermove', event => {
  if (!drag || event.pointerId !== drag.pointer) return;
  drag.last = event;
  if (!drag.moved && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < THRESHOLD) return;
  if (!drag.moved) beginMoving();
  follow();
});

function beginMoving() {
  drag.moved = true;
  root.classList.add('te-dragging', `te-dragging-${drag.kind}`);
  tip.hidden = false;
  if (drag.kind !== 'noise') drag.frame = requestAnimationFrame(scrollAtEdges);
}

/** Draw where the pointer is. It reads nothing from the page. */
function follow() {
  const dx = drag.last.clientX - drag.x + scrolled - drag.scrolled;
  const [next, words] = { move: followMove, left: followLeft, right: followRight, noise: followNoise }[drag.kind](dx);
  if (next !== value) { value = next; drawMoving(); }
  if (drag.kind === 'move') floatCards(dx);
  drawTip(words);
}

function followMove(dx) {
  const { k, base } = drag;
  const wanted = slotAt(left(k.slot) + dx + Math.min(geo.width, widthOf(k.slot)) / 2);
  const next = wanted === drag.wanted ? value : moved(base, chosen, wanted - k.slot);
  drag.wanted = wanted;
  const shorter = next.keyframes.find(x => x.id === k.id).span < k.span;
  return [next, spanWords(next, shorter ? 'ends' : null)];
}

/** The number of the border between slots that is nearest. */
const borderAt = x => clamp(Math.round(x < geo.zero ? x / geo.zero : 1 + (x - geo.zero) / geo.width), 0, geo.slots);

function followLeft(dx) {
  const [next, reason] = leftEndAt(drag.base, drag.k, borderAt(left(drag.k.slot) + dx));
  return [sameEnds(next), spanWords(next, reason)];
}

function followRight(dx) {
  const [next, reason] = rightEndAt(drag.base, drag.k, borderAt(left(endOf(drag.k)) + dx) - 1);
  return [sameEnds(next), spanWords(next, reason)];
}

/** The present value if the new one has the dragged clip at the same place: then nothing has to be drawn. */
function sameEnds(next) {
  const [a, b] = [next, value].map(v => v.keyframes.find(x => x.id === drag.k.id));
  return a.slot === b.slot && a.span === b.span ? value : next;
}

function spanWords(next, reason) {
  const now = next.keyframes.find(x => x.id === drag.k.id);
  const place = say(now.span === 1 ? 'slot_text' : 'slots_text', {
    slot: now.slot, last: endOf(now) - 1, frames: framesText(value.grid, now.slot, now.span) });
  return reason ? `${place}. ${say(reason, { name: now.name, frames: now.frames })}` : place;
}

function followNoise() {
  const { k, base, last } = drag;
  const from = k.noise[drag.grabbed];
  const exact = from + (drag.y - last.clientY) / (CURVE - 2 * PAD);
  const step = last.altKey || last.ctrlKey || last.metaKey ? 0.01 : 0.05;
  const to = round2(clamp(Math.round(exact / step) * step, 0, 1));
  const words = say('noise_text', { noise: number(to), words: noiseWords(to) });
  if (to === drag.to) return [value, words];
  drag.to = to;
  const moving = drag.index === null ? base.keyframes.filter(x => chosen.has(x.id)) : [k];
  return [to === from ? base : louder(base, moving, to - from, drag.index), words];
}

/** The cards follow the pointer, while outlines show where they will land. */
function floatCards(dx) {
  for (const id of chosen) {
    const { k, card } = nodes.get(id);
    const from = drag.base.keyframes.find(x => x.id === id);
    card.style.transform = `translateX(${left(from.slot) + dx - left(k.slot)}px)`;
  }
}

function drawTip(words) {
  const now = nodes.get(drag.k.id).k;
  const slot = now.slot + (drag.kind === 'noise' ? drag.grabbed : 0);
  const margin = Math.min(110, geo.total / 2);  // half of what the words may be wide, in pixels
  const x = clamp(left(slot) + widthOf(slot) / 2, margin, geo.total - margin);
  tip.style.transform = `translateX(${x}px) translateX(-50%)`;
  write(tip, words);
}

function scrollAtEdges() {
  if (!drag?.moved) return;
  const { clientX } = drag.last;
  const over = Math.max(0, clientX - drag.right + EDGE) + Math.min(0, clientX - drag.left - EDGE);
  if (over) {
    scroll.scrollLeft = scrolled + clamp(over / 3, -14, 14);
    scrolled = scroll.scrollLeft;
    follow();
  }
  drag.frame = requestAnimationFrame(scrollAtEdges);
}

/** End a drag: keep what it did, or put everything back. */
function endDrag(keep) {
  const { kind, base, moved: did, frame, k, more, pointer } = drag;
  cancelAnimationFrame(frame);
  drag = null;
  if (tracks.hasPointerCapture(pointer)) tracks.releasePointerCapture(pointer);
  root.classList.remove('te-dragging', `te-dragging-${kind}`);
  tip.hidden = true;
  for (const id of chosen) { const node = nodes.get(id); if (node) node.card.style.transform = ''; }
  const next = value;
  value = base;
  if (keep && did) { if (!change(next)) draw(); } else draw();
  if (keep && !did && !more && chosen.size > 1) choose([k.id]);
  rested();
}

tracks.addEventListener('pointerup', event => { if (drag?.pointer === event.pointerId) endDrag(true); });
for (const name of ['pointercancel', 'lostpointercapture']) {
  tracks.addEventListener(name, event => { if (drag?.pointer === event.pointerId) endDrag(false); });
}
// A second finger, or a key, presses no button that would change what is dragged.
root.addEventListener('click', event => {
  if (dragging()) { event.preventDefault(); event.stopPropagation(); }
}, { capture: true });

// --- zoom -----------------------------------------------------------------------------------------------------------

/** Make slots wider or narrower; what is under `x` (pixels from the left of the view) stays there. */
function zoomBy(factor, x = viewWidth / 2) {
  if (!value || drag) return;
  const at = (scrolled + x) / geo.total;
  zoom = clamp(geo.width * factor, 5, 400);
  draw();
  scroll.scrollLeft = at * geo.total - x;
}

function zoomToFit() { zoom = 'fit'; draw(); }

scroll.addEventListener('wheel', event => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / 400), event.clientX - scroll.getBoundingClientRect().left);
}, { passive: false });
