// Light and dark: the system decides until the visitor does; the choice stays in this browser.
const KEY = 'pusa-theme';
const read = () => { try { return localStorage.getItem(KEY); } catch { return null; } };
const write = value => { try { localStorage.setItem(KEY, value); } catch { /* private window: it lasts for this page */ } };
const apply = theme => document.body.classList.toggle('dark', theme === 'dark');
const chosen = read();
if (chosen) apply(chosen);
element.querySelector('.top-theme').addEventListener('click', () => {
  const next = document.body.classList.contains('dark') ? 'light' : 'dark';
  apply(next);
  write(next);
});

// The bell: a sound and a notification at the end of a run, when nobody looks at the page. Off until it is asked for.
const BELL = 'pusa-bell';
const bell = element.querySelector('.top-bell');
const wanted = () => { try { return localStorage.getItem(BELL) === 'on'; } catch { return bell.dataset.rings === 'true'; } };
let audio = null;

function drawBell(on = wanted()) {
  bell.dataset.rings = on;
  bell.setAttribute('aria-pressed', on);
  bell.title = on ? bell.dataset.off : bell.dataset.on;
  bell.setAttribute('aria-label', bell.dataset.on);
}

function chime() {
  if (!audio) return;
  [[660, 0], [880, 0.16]].forEach(([pitch, after]) => {
    const tone = audio.createOscillator(), loud = audio.createGain(), at = audio.currentTime + after;
    tone.frequency.value = pitch;
    loud.gain.setValueAtTime(0, at);
    loud.gain.linearRampToValueAtTime(0.16, at + 0.02);
    loud.gain.exponentialRampToValueAtTime(0.001, at + 0.5);
    tone.connect(loud).connect(audio.destination);
    tone.start(at);
    tone.stop(at + 0.55);
  });
}

// A browser makes no sound before the visitor has touched the page.
function listen() {
  if (!wanted() && !audio) return;
  const Context = window.AudioContext || window.webkitAudioContext;
  try { audio ??= Context ? new Context() : null; audio?.resume(); } catch { audio = null; }
}
for (const touch of ['pointerdown', 'keydown']) document.addEventListener(touch, listen, { capture: true });

bell.addEventListener('click', () => {
  const on = !wanted();
  try { localStorage.setItem(BELL, on ? 'on' : 'off'); } catch { /* it lasts for this page */ }
  drawBell(on);
  if (!on) return;
  listen();
  chime();
  if (window.Notification?.permission === 'default') Notification.requestPermission();
});
window.addEventListener('storage', event => { if (event.key === BELL) drawBell(); });

document.addEventListener('pusa-ended', event => {
  if (!wanted() || !document.hidden) return;
  // Of several tabs that nobody looks at, one is loud enough.
  const key = 'pusa-told', ids = event.detail.map(job => job.id).sort().join();
  try { if (localStorage.getItem(key) === ids) return; localStorage.setItem(key, ids); } catch { /* then each tells */ }
  chime();
  if (window.Notification?.permission !== 'granted') return;
  for (const { id, state, title } of event.detail) {
    try {
      const note = new Notification(bell.dataset[state] || bell.dataset.done, { body: title, tag: id });
      note.onclick = () => { window.focus(); note.close(); };
    } catch { /* a phone lets only a service worker tell */ }
  }
});
drawBell();

// A clip that a browser cannot play may be one that the program reads: whether a file is sound, the program says, and
// not a toast of the upload field.
document.addEventListener('error', event => {
  if (event.target instanceof HTMLVideoElement && event.target.closest('#uploads')) event.stopImmediatePropagation();
}, { capture: true });
