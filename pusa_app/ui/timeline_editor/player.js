// The player beside the editor: its present frame as a keyframe, and where it is as a line over the slots.

const PLAYER_LOOK = 1000;  // milliseconds
const SEEN = ['play', 'pause', 'seeked', 'timeupdate', 'loadedmetadata', 'emptied'];

const playhead = make('div', 'te-playhead', tracks);
let watched = null, playing = 0;

const playerVideo = () => {
  try { return prop('player') ? document.querySelector(prop('player')) : null; } catch { return null; }
};

/** The page makes its video anew whenever it likes, so that it has to be looked for. */
function lookForPlayer() {
  const video = playerVideo();
  if (video !== watched) {
    for (const name of SEEN) watched?.removeEventListener(name, drawPlayhead);
    for (const name of SEEN) video?.addEventListener(name, drawPlayhead);
    watched = video;
  }
  const away = prop('readonly') || !(video && video.currentSrc && video.readyState > 0);
  if (controls.take.hidden !== away) controls.take.hidden = away;
  drawPlayhead();
}

/** Whether the player's video is as long as the timeline, so that its time is a place on it. */
function isOurs(video) {
  const { num_frames: frames, fps } = value.grid;
  return !!video && Math.abs(video.duration * fps - frames) < 1.5;
}

function drawPlayhead() {
  const shown = !!value && !!geo && isOurs(watched);
  if (playhead.hidden === shown) playhead.hidden = !shown;
  ruler.classList.toggle('te-seeks', shown);
  if (!shown) return;
  playhead.style.transform = `translateX(${leftOfFrame(watched.currentTime * value.grid.fps).toFixed(1)}px)`;
  cancelAnimationFrame(playing);
  if (!watched.paused && element.isConnected) playing = requestAnimationFrame(drawPlayhead);
}

/** The page, which has the video, makes a picture of the frame and adds it. */
function takeFrame() {
  const slot = freeSlot(value, nextSlot());
  if (slot === null) complain(say('full'));
  else if (watched) order('take', { slot, seconds: watched.currentTime }, say('taking'));
}

function seek(event) {
  const { fps, num_frames: frames } = value.grid;
  const x = event.clientX - seekLeft;
  const frame = x < geo.zero ? x / geo.zero : 1 + (x - geo.zero) / perFrame();
  watched.currentTime = clamp(frame, 0, frames - 0.5) / fps;
}

let seekLeft = 0;
ruler.addEventListener('pointerdown', event => {
  if (event.button || !value || !isOurs(watched)) return;
  event.preventDefault();
  seekLeft = tracks.getBoundingClientRect().left;
  ruler.setPointerCapture(event.pointerId);
  seek(event);
});
ruler.addEventListener('pointermove', event => { if (ruler.hasPointerCapture(event.pointerId)) seek(event); });

const looking = setInterval(() => {
  if (element.isConnected) lookForPlayer(); else clearInterval(looking);
}, PLAYER_LOOK);
