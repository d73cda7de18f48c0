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

// A clip that a browser cannot play may be one that the program reads: whether a file is sound, the program says, and
// not a toast of the upload field.
document.addEventListener('error', event => {
  if (event.target instanceof HTMLVideoElement && event.target.closest('#uploads')) event.stopImmediatePropagation();
}, { capture: true });
