// The one clock of the page. While something runs or waits it asks Python how it goes, and else now and then, for what
// others did and for what was lost on the way; all the time it sees whether the program is there at all. It also tells
// how far a run is in the title of the tab, and the end of one to the top bar.
const config = window.gradio_config || {};
const here = new URL(`${config.root || ''}${config.api_prefix || '/gradio_api'}/app_id`, location.href);
// Milliseconds. REST: between questions where nothing goes on. LATE: after which an answer counts as lost.
const WORKING = 400, IDLE = 4000, LOST = 1000, REST = 10000, LATE = 5000;
const name = document.title;
const channel = 'BroadcastChannel' in window ? new BroadcastChannel('pusa-studio') : null;
let going = null, version = null, failures = 0, asked = false, over = false;

// --- seconds that are not slowed down in a tab that nobody looks at -----------------------------------------------------

let wake = () => {}, pending = 0;
let timer = (call, after) => { wake = call; clearTimeout(pending); pending = setTimeout(() => wake(), after); };
try {
  // One timer: a new one takes the place of the old.
  const code = 'let t; onmessage = e => { clearTimeout(t); t = setTimeout(() => postMessage(0), e.data); }';
  const clock = new Worker(URL.createObjectURL(new Blob([code])));
  clock.onmessage = () => wake();
  timer = (call, after) => { wake = call; clock.postMessage(after); };
} catch { /* a page that may start no worker is told of the end of a run a minute late */ }

// --- is the program there? ----------------------------------------------------------------------------------------------

const notice = document.createElement('div');
notice.className = 'gone';
notice.setAttribute('role', 'alert');
notice.hidden = true;
document.body.append(notice);

async function answers() {
  try {
    const answer = await fetch(here, { cache: 'no-store', signal: AbortSignal.timeout(15000) });
    return answer.ok ? (await answer.json()).app_id : null;
  } catch { return null; }
}

let beating = false, last = 0;
async function beat() {
  beating = true;
  // Whatever goes wrong meanwhile, the clock goes on.
  let next = LOST;
  try {
    next = await look();
  } finally {
    beating = false;
    if (!over) timer(beat, next);
  }
}

/** See whether the program is there and ask it, when it is time; milliseconds until the next look. */
async function look() {
  const app = await answers();
  if (app === null) {
    failures++;
    // A machine at its limits may be late once; what refuses the connection twice is not there.
    if (failures > 1) lose();
    return failures > 1 ? LOST : 300;
  }
  if (app !== config.app_id) { over = true; location.reload(); return LOST; }
  if (failures) { failures = 0; find(); }
  if (props.value?.active || asked || performance.now() - last > REST) ask();
  return props.value?.active || asked ? WORKING : IDLE;
}

/** Something begins or came to rest: do not sleep over it. */
function hurry() {
  if (!beating && !failures) timer(beat, WORKING);
}

function lose() {
  notice.textContent = WORDS.gone;
  notice.hidden = false;
  document.body.classList.add('pusa-gone');
}

function find() {
  notice.hidden = true;
  document.body.classList.remove('pusa-gone');
  asked = true;
}

/** Ask now, and not when the clock comes round; but one question at a time. */
function ask() {
  const now = performance.now();
  asked = !!failures || (waiting && now - last < LATE);
  if (asked) return;
  waiting = true;
  last = now;
  trigger('tick', {});
}

let waiting = false;
document.addEventListener('pusa-told', event => {
  waiting = false;
  if (event.detail.lost) asked = true;
  if (asked) hurry();
});

// --- what the page says of it ---------------------------------------------------------------------------------------

let active = false;
function draw() {
  const v = props.value || {};
  // An answer may come later than a newer one: what has come to rest is asked once more.
  if (active && !v.active) asked = true;
  if (active !== !!v.active) hurry();
  active = !!v.active;
  const now = new Set(v.going || []);
  const ends = [...(going || [])].filter(id => !now.has(id) && v.ended?.[id]).map(id => ({ id, ...v.ended[id] }));
  going = now;
  if (ends.length) document.dispatchEvent(new CustomEvent('pusa-ended', { detail: ends }));
  entitle(v, ends);
  badge(now.size);
  // Other tabs learn what changed here, and ask for themselves.
  if (v.version !== undefined && v.version !== version) {
    if (version !== null) channel?.postMessage(v.version);
    version = v.version;
  }
}

let finished = false;
function entitle(v, ends) {
  if (ends.length && document.hidden) finished = true;
  const state = v.fraction != null ? `${Math.round(100 * v.fraction)}% - ` : finished ? `${WORDS.finished} - ` : '';
  if (document.title !== state + name) document.title = state + name;
}

function badge(count) {
  for (const tab of document.querySelectorAll('#pages > .tab-wrapper button[role="tab"]')) {
    if (tab.dataset.tabId !== 'queue' && tab.id !== 'page-queue-button') continue;
    if (count) tab.dataset.count = count; else delete tab.dataset.count;
    tab.setAttribute('aria-label', count ? WORDS.tab.replace('{count}', count) : WORDS.tab_empty);
  }
}

channel?.addEventListener('message', event => { if (event.data !== version) ask(); });
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  finished = false;
  entitle(props.value || {}, []);
  ask();
});
window.addEventListener('focus', ask);
window.addEventListener('resize', () => badge(going?.size || 0));

watch('value', draw);
draw();
beat();
