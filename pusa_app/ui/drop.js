// A video that is dropped anywhere on the page: it is uploaded, and Python reads the recipe inside it. Upload fields and
// the timeline take what is dropped on them themselves.
const root = element.querySelector('.drop');
const words = document.createElement('span');
root.append(words);
root.setAttribute('role', 'status');
const OWN = '#uploads, #timeline-editor, .upload-container, [data-testid="upload"], .modal-container, input, textarea';
let leaving = 0, waiting = 0, busy = false;

const isFile = event => [...(event.dataTransfer?.types ?? [])].includes('Files') && !event.target.closest?.(OWN);
function write(text) { words.textContent = text; root.classList.toggle('drop-on', !!text); }
const name = file => (file.name.length > 60 ? `${file.name.slice(0, 50)}…` : file.name) || 'video';

document.addEventListener('dragover', event => {
  if (!root.isConnected || !isFile(event) || event.defaultPrevented) { if (!busy) write(''); return; }
  event.preventDefault();
  event.dataTransfer.dropEffect = 'copy';
  if (!busy) write(WORDS.here);
  clearTimeout(leaving);
  leaving = setTimeout(() => { if (!busy) write(''); }, 1000);
});
document.addEventListener('dragleave', event => { if (!event.relatedTarget && !busy) write(''); });
document.addEventListener('drop', async event => {
  if (!root.isConnected || !isFile(event) || event.defaultPrevented) { if (!busy) write(''); return; }
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (!file) return;
  busy = true;
  write(WORDS.reading.replace('{name}', name(file)));
  try {
    const { path } = await upload(file);
    trigger('submit', { path });
    waiting = setTimeout(done, 30_000);  // for an answer that never comes
  } catch {
    write(WORDS.failed.replace('{name}', name(file)));
    setTimeout(done, 5000);
  }
});
function done() { clearTimeout(waiting); busy = false; write(''); }
watch('told', done);
