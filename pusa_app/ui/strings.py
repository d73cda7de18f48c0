"""Every word of the page that is not in a task, a model card or an error."""

NAME = "Pusa Studio"

PROMPT = "Prompt"
PROMPT_PLACEHOLDER = "a red circle moves right on a black background"
PROMPT_MISSING = "Say in a few words what happens in the video."
NO_TASK = "There is no such task here."
STYLE = "How the clips meet"
STYLES = [("Through new frames between them", "bridge"), ("From one into the other within the length", "cross")]
DIRECTION = "Where it goes on"
DIRECTIONS = [("Forwards", "forwards"), ("Backwards", "backwards"), ("Both", "both")]
MORE = {"extend": "Frames to add", "restyle": "Frames in all"}
MORE_WRONG = "That is no number of frames: use a whole number from 1 to {most}, or leave it empty."
MORE_HELP = "Empty: as many as one run makes. More are made in runs that overlap."
GAP_FIRST = "Gap: first frame"
GAP_LAST = "Gap: last frame"
GAP_WRONG = "The gap ends before it begins: its last frame cannot be smaller than its first, which is 0 at least."
GAP_MISSING = "Say which frames to make anew: the first and the last frame of the gap."
GAP_NOW = "The gap is frames {first} to {last} now."
MORE_NOW = "{what}: {count} now."
CLOSING = "Noise of the closing frame"
CLOSING_HELP = "For loops from words: 0 closes exactly, 0.3 more softly."
RESULT = "The result holds"
RESULTS = [("The whole clip", "joined"), ("New frames only", "made")]
COLOR_MATCH = "Match colours"
COLOR_MATCH_HELP = "New frames take on the colours of the frames that you gave."
LENGTH = "Length"
SEED = "Seed"
SEED_HELP = "The same seed and settings give the same video."
SEED_WRONG = "A seed is a whole number from 0 on, of at most 15 digits."
DICE = "New seed"
RANDOM = "Random each time"
ADVANCED = "Advanced"
NEGATIVE = "Negative prompt"
NEGATIVE_HELP = "What should not be in the video."
STEPS = "Steps"
STEPS_HELP = "More steps take longer and give cleaner frames."
SCHEDULE = "Schedule"
SCHEDULE_HELP = "How the steps go from noise to video."
SCHEDULES = {"": "The model's own", "shift": "Shift", "linear-quadratic": "Linear-quadratic"}
SCHEDULE_VALUES = {"shift": "Shift", "linear-quadratic": "Threshold"}
SIZE = "Size"
SIZE_HELP = "Smaller ones need less memory and time; the model knows its own best. You may type another."
SIZE_WRONG = "A size is written as 640x384: width, x, height, each from 8 to 8192 pixels."
GUIDANCE = "Guidance"
GUIDANCE_HELP = "How strictly the prompt is followed; 1 turns guidance off."
GUIDED_HIGH = "Guidance from noise"
GUIDED_LOW = "Guidance down to noise"
GUIDED_HIGH_HELP = "1 is pure noise, 0 the video."
GUIDED_LOW_HELP = "Steps outside take half the time; the last ones need it least."
GUIDANCE_2 = "Guidance of the second expert"
GUIDANCE_2_HELP = "Empty: the same."
CACHE = "Cache"
CACHE_HELP = "0 is off. More is faster: steps that change less than this are guessed. 0.1 is careful, 0.2 fast."
MODEL = "Model"
GENERATE = "Generate"
CANCEL = "Cancel"
GALLERY = {
    "try_one": "Try one",
    "all": "All presets",
    "fewer": "Close",
    "run": "Try",
    "use": "Use",
    "use_help": "With the files that you gave",
    "remove": "Delete",
    "save": "Save the form as a preset",
    "title": "Name",
    "when": "When to use it",
    "confirm": "Save",
}
SAVED = "Saved."

SWEEP = "Sweep"
SWEEP_HELP = (
    "The same video with one or two things varied, side by side: which noise, which seed, which preset? "
    "Keyframes are counted from the left."
)
SWEEP_AXIS = ("Vary", "And")
SWEEP_NONE = "nothing else"
SWEEP_KINDS = {
    "noise": "Noise",
    "seed": "Seed",
    "steps": "Steps",
    "guidance": "Guidance",
    "preset": "Preset",
}
SWEEP_KEYFRAME = "Keyframe"
SWEEP_VALUES = "Values"
SWEEP_EXAMPLES = {
    "": "",
    "noise": "0, 0.2, 0.4, 0.7",
    "seed": "1-4",
    "steps": "5, 10, 20",
    "guidance": "1, 3, 6",
    "preset": "Exact first frame, Soft arrival",
}
SWEEP_VALUES_MISSING = "The sweep needs values for {what}, with commas between them."
SWEEP_RUN = "Run the sweep"
SWEEP_ALL = "All together"
SWEEP_MADE = "{made} of {count} videos were made."
SWEEP_SHEET = "Contact sheet"
SWEEP_CHOOSE = "That is all of the sweep: choose one of its videos first."
SWEEP_NO_PRESET = "There is no preset called {name}: write titles from All presets, with commas between them."
SWEEP_NO_KEYFRAME = "There is no keyframe {number} to vary: the timeline has {count}."
SWEEP_TOO_MANY = "{count} videos are too many for a sweep: {most} are the most."
SWEEP_OUTSIDE = "{value} cannot be a value of {what}: write values such as {example}."
REUSE = "Use these settings"
EXTEND = "Extend"
LOOP = "Loop"
HISTORY = "Recent"
THEME = "Switch between light and dark"

IDLE_TITLE = "Your video appears here"
IDLE_DETAIL = "Write a prompt and press Generate, or try one of the examples."
WAITING_TITLE = "Waiting"
NEXT = "It is next."
AHEAD_ONE = "1 video before this one."
AHEAD = "{count} videos before this one."
READY_IN = "ready in about {clock}"
HELD = "Held while you edit it."
PAUSED = "The queue is paused: go on with it on the page Queue."
PAUSED_SHORT = "paused"
STOPPING = "Stopping"
STARTING = "Starting"
CANCELLED_TITLE = "Cancelled"
CANCELLED_DETAIL = "Nothing was saved."
CANCELLED_SWEEP = "The videos that were finished are below."
FAILED_TITLE = "This did not work"
INTERRUPTED_TITLE = "Interrupted"
NOT_UPLOADED = "Files must be uploaded."
OTHER_GRID = "This timeline has not the frames per slot or the frame rate of {model}: it was made for another model."
GONE = "That video is no longer here."

STATES = {
    "queued": "waiting",
    "running": "in progress",
    "failed": "failed",
    "interrupted": "interrupted",
    "cancelled": "cancelled",
}

PHASES = {
    "waiting": "Waiting",
    "loading": "Loading the model",
    "encoding": "Reading what you gave",
    "sampling": "Step {step} of {steps}",
    "decoding": "Turning latents into frames",
    "writing": "Writing the video",
}

ENDED = {"failed": "Failed", "cancelled": "Cancelled", "interrupted": "Interrupted"}
QUEUE_TITLE = "Queue"
QUEUE = {
    "running": "Running",
    "waiting": "Waiting",
    "ended": "Ended without a video",
    "nothing": "Nothing waits",
    "nothing_detail": "Press Generate as often as you like: what you ask for is made one after another.",
    "how": "Drag to change the order, or use Alt with the arrow keys.",
    "drag": "Drag to another place",
    "up": "Earlier",
    "down": "Later",
    "moved": "Now in place {place} of {count}.",
    "see": "Watch",
    "cells": "See what was made",
    "edit": "Edit",
    "release": "Stop editing",
    "retry": "Retry",
    "duplicate": "Duplicate",
    "cancel": "Cancel",
    "remove": "Remove",
    "stopping": "Stopping",
    "pause": "Pause the queue",
    "go_on": "Go on",
    "clear": "Clear",
    "clear_ask": "Cancel {count} waiting videos?",
    "clear_ask_one": "Cancel the waiting video?",
    "clear_yes": "Cancel them",
    "keep": "Keep them",
    "open": "Open the queue",
}
RUNNING_COUNT = "{count} running"
WAITING_COUNT = "{count} waiting"
ADDED = "Added to the queue."
ADDED_MANY = "{count} videos added to the queue."
ALL_DONE = "all done in about {clock}"
SUMMARY_PAUSED = "The queue is paused. What runs is finished, and nothing new begins."
RESUME_FROM = "Resume from step {step}"
SWEEP_COUNT = "{count} videos"
RESTARTED = "{what} when the program ended."
INTERRUPTED_COUNT = ("", "1 video was interrupted", "{count} videos were interrupted")
WAITED_COUNT = ("", "1 video was waiting", "{count} videos were waiting")
AND = " and "
RESUME_ONE = "Resume 1 job"
RESUME_ALL = "Resume {count} jobs"
BANNER = {"later": "Not now"}
EDITING = "You are editing a video that waits: {title}"
EDITING_SWEEP = "You are editing a sweep that waits: {title}"
EDITING_SWEEP_HOW = "The button under Sweep saves it."
EDITS_SWEEP = "You are editing a sweep: save it with the button under Sweep, or stop editing first."
EDITS_VIDEO = "You are editing a video: save it to the queue, or stop editing first."
STOP_EDITING = "Stop editing"
SAVE_TO_QUEUE = "Save to the queue"
NO_LONGER_WAITING = "This video is no longer waiting: it cannot be edited."
SEEDS = "Number of seeds"
EMBED = "Recipe inside the video"
EMBED_HELP = "Drop the video on this page later, and its settings are back. Off: it tells nobody how it was made."
LIVE = {
    "gone": "The program was closed. Waiting for it…",
    "finished": "Done",
    "tab": "Queue, {count} running or waiting",
    "tab_empty": "Queue",
}
STAGE = {"noise": "Noise of each slot at this step; keyframes are marked"}
BELL = {
    "on": "Tell me when a video is ready and I look elsewhere",
    "off": "Do not tell me when a video is ready",
    "done": "Your video is ready",
    "failed": "A video could not be made",
    "cancelled": "A video was cancelled",
    "interrupted": "A video was interrupted",
}

PART = "Part {part} of {parts}"
TIMELINE = "Timeline"
REMADE = "The task made the timeline anew; undo brings yours back."
REMADE_KEPT = "What you had changed on the timeline was kept."
REMADE_PART = "Of what you had changed on the timeline, as much as fits was kept."
OF_OTHER_MODEL = (
    "That timeline was of another model: choose that model to have it as it was. It is fitted to {model} now."
)
OF_OTHER_SIZE = "That timeline was of another size: choose that size to have it as it was. It is {width}x{height} now."
MODELS = {
    "title": "Models",
    "intro": "A model is a folder of weights. Download one once, and it works without a network.",
    "host_only": "Whoever runs this program adds models: on this page of his own machine, or on the command line.",
    "does": "Does:",
    "about": "About it",
    "trained": "Trained for:",
    "page": "its page",
    "progress": "Downloaded",
    "keep": "Keep it",
    "own": "Use a folder or a file that you have",
    "own_help": "It stays where it is, and nothing is copied.",
    "path": "Folder or file on this machine",
    "path_example": "/home/me/models/mochi-1-preview",
    "which": "It is",
    "use": "Use it",
    "hub": "LoRA from the hub",
    "hub_help": "Its repository at huggingface.co, or the address of a file of it. Which model it is for is found out.",
    "hub_field": "Repository or address",
    "hub_example": "OWNER/REPO or https://huggingface.co/…",
    "hub_get": "Download it",
    "hub_looking": "Looking at the hub…",
    "token": "Access token",
    "token_field": "Token of huggingface.co",
    "token_help": "Only gated models need one. It is kept where all programs of Hugging Face look for it.",
    "token_there": "There is one on this machine. A new one takes its place.",
    "token_keep": "Keep",
    "token_drop": "Forget it",
}
LORAS = {
    "title": "LoRAs",
    "help": "Small additions to the model. Strength 1 is as it was made; 0 is off.",
    "add": "Add a LoRA",
    "none": "None are here for this model.",
    "place": "Or the path of a file",
    "use": "Add",
    "strength": "Strength",
    "strength_field": "Strength in figures",
    "drop": "Take off",
    "own": "part of the model",
    "range": "Known to work from {low} to {high}.",
    "distilled": "Use its {steps} steps at guidance {guidance}",
    "distilled_steps": "Use its {steps} steps",
}
CAPTION_LORAS = "LoRA {loras}"
LORAS_HOST_ONLY = "Only whoever runs this program can name files of its machine: choose a LoRA of the list."
LORAS_NO_PLACE = "Write where the file of the LoRA is."
LORAS_TOO_MANY = "A video takes {most} LoRAs at most: take one off first."
GUIDE = {
    "title": "Make real videos",
    "open": "See what runs here",
    "later": "Not now",
    "others": "Other models",
    "licence": "Licence:",
    "busy": "{title} is on its way",
    "stopped": "{title} is not here yet",
    "ready": "{title} is here",
    "use": "Use it",
    "models": "See it on the page Models",
}
GUIDE_INTRO = "Only mini is here, which draws moving shapes. This machine can run more: {machine}."
GUIDE_MACHINE = "This machine: {machine}."
GUIDE_HERE = "On this machine: {clip}."
GUIDE_NOT_HERE = "Not on this machine: {reason}"
MODELS_STATES = {"here": "ready", "busy": "downloading", "partial": "partly here", "missing": "not here"}
MODELS_VERBS = {
    "download": "Download {size}",
    "download_about": "Download about {size}",
    "resume": "Resume",
    "rest": "Download the rest",
    "finish": "Set up, all files are here",
    "pause": "Pause",
    "remove": "Delete…",
    "forget": "Forget…",
}
MODELS_PHASES = {
    "checking": "Checking what is here",
    "looking": "Asking the hub what there is to download",
    "converting": "Putting the model together",
    "done": "Done",
}
MODELS_PLACES = {"built-in": "built in", "own": "your folder"}
MODELS_ABOUT = "about "
MODELS_OF = "{have} of {size}"
MODELS_LEFT = "{clock} left"
MODELS_SIZE_LATER = "the hub tells its size"
MODELS_EVERYTHING = "all tasks"
MODELS_NOT_YET = "this version cannot run it yet"
MODELS_GATED = "gated: needs an access token"
MODELS_DISK = "{free} free where downloads go, {folder}"
MODELS_OWN_ID = "a model of its own"
MODELS_REMOVE = "Deleting {title} frees {size}."
MODELS_SURE_REMOVE, MODELS_SURE_FORGET = "Delete", "Take it off the list"
MODELS_SHARED = "What {titles} needs too is kept."
MODELS_FORGET = "{title} is your folder {folder}: it is taken off this list, and stays as it is."
MODELS_REMOVED = "{title} is deleted; {size} are free again."
MODELS_FORGOTTEN = "{title} is off the list; your folder is as it was."
MODELS_ADDED = "{id} is on the list now."
MODELS_HUB_NO_NAME = "Write which LoRA: OWNER/REPO, or its address at huggingface.co."
MODELS_FAILED = "The download failed."
MODELS_HUB_COMES = "{title} is on its way. {summary}"
MODELS_HUB_HERE = "{title} is here already. {summary}"
MODELS_LORA = "LoRA"
MODELS_OFF = "Nothing of {title} is here: it is taken off this list."
MODELS_IS_OFF = "{title} is off the list."
MODELS_NOT_HERE = "That model is not here: download it first."
MODELS_NO_PATH = "Say where the folder or file is."
MODELS_BAD_PATH = "That is no path: write where the folder or file is."
MODELS_TOKEN_KEPT = "The token of {name} is kept."
MODELS_HOST_ONLY = "Only whoever runs this program can do that, on its own machine or on the command line."

HELP = """
## In a minute

1. Choose a task above, give what it asks for, and press **Generate**. The chips under the prompt are examples: one
   click fills the form and runs.
2. The **timeline** shows what the model will get: your pictures and clips in their slots, and above them the noise.
   Move them, trim them, drag the handles, or choose a slot to add something.
3. Every video keeps its recipe: click one in **Recent** to see it again, **Use these settings** to go on from
   there, **Extend** or **Loop** to make more of it.
4. The **Library** has all of them: search, keep, compare two, save one as a GIF, or take a frame of it as a keyframe.
   Drop a video that was made here anywhere on the page, and its recipe fills the form.

## Which noise, and where

| noise | what the model makes of a keyframe |
|---|---|
| 0 | this exact frame |
| 0.2 to 0.4 | this frame with natural motion |
| 0.7 | only its composition |
| 1 | nothing: the slot is free |

The shaded range on the curve is what is advised for the task. Leave at least two free slots between clean keyframes.
For a clip that goes on, clean slots continue most exactly; a ramp such as 0.1, 0.2, 0.3, 0.4 lets something new begin.

## The tasks

- **Start-end**: the way between two pictures. A little noise at the end lets the motion arrive.
- **Keyframes**: anything in any slot.
- **Transition**: from the end of clip A to the start of clip B, through new frames or by crossing.
- **Loop**: from words, around a picture, or a clip led back to its start.
- **Extend**: forwards, backwards, both; longer than one run is made in runs that overlap. The bar above the timeline
  says which frames are yours; they stay as they are.
- **Complete**: say the first and the last frame of the gap.
- **Restyle**: every slot from your clip. 0.5 keeps shapes and motion, 0.7 the composition.

## The other numbers

**Length** comes in steps, because the model thinks in slots: the first slot is one frame, each later one is several.
**Seed** is the noise that a video starts from; keep it to change one thing at a time. **Steps** is how many times the
noise is taken down. **Guidance** is how strictly the prompt is followed; too much makes colours harsh. A **sweep**
shows what any of them does, side by side.

## What mini knows

The built-in model draws one shape on a plain background: *circle, square, triangle, star, cross, ring* in *red, orange,
yellow, green, cyan, blue, pink, white* on *black, gray, dark blue, dark green, dark purple, tan*. It can say how the
shape moves: *right, left, up, down, up right ...*, *bounces, sways, spins, grows, shrinks, pulses, orbits clockwise,
orbits counterclockwise, stays still*. Other words mean nothing to it.

## Your files

Videos are kept in the data folder of the machine that this program runs on. While they are shown, a copy lies in the
page's cache, where anybody who knows its address can open it, for a day.
"""

LIBRARY_TITLE = "Library"
LIBRARY = {
    "search": "Search prompts, tasks, models and seeds",
    "task": "Task",
    "any_task": "All tasks",
    "model": "Model",
    "any_model": "All models",
    "order": "Order",
    "newest": "Newest first",
    "oldest": "Oldest first",
    "favourites": "Favourites",
    "deleted": "Deleted",
    "videos": "Videos",
    "more": "Show more",
    "empty": "Your videos gather here",
    "empty_detail": "Make one on Create, or drop one that was made here anywhere on the page to have its settings.",
    "empty_favourites": "No favourites yet",
    "empty_favourites_detail": "The star on a video keeps it at hand.",
    "empty_deleted": "Nothing deleted",
    "empty_deleted_detail": "What you delete stays here for a day.",
    "no_match": "No video matches",
    "no_match_detail": "Try fewer words, or other filters.",
    "clear_filters": "Show all videos",
    "star": "Favourite",
    "pick": "Select",
    "picked_one": "1 selected",
    "picked": "{count} selected",
    "clear": "Clear",
    "compare": "Compare",
    "compare_help": "Choose two videos to compare them.",
    "delete": "Delete",
    "restore": "Restore",
    "deleted_one": "Deleted 1 video.",
    "deleted_many": "Deleted {count} videos.",
    "undo": "Undo",
    "restored": "It is back.",
    "sweep": "Sweep of {count}",
    "seed": "seed\u00a0{seed}",
    "no_prompt": "(no prompt)",
    "today": "Today",
    "yesterday": "Yesterday",
    "back": "Back",
    "loop": "Loop",
    "use": "Use settings",
    "frame": "Use frame as keyframe",
    "extend": "Extend",
    "go_loop": "Make a loop",
    "save_as": "Save as…",
    "kind": "Format",
    "kinds": [["mp4", "MP4"], ["webm", "WebM"], ["gif", "GIF"], ["frames", "Frames (zip)"]],
    "quality": "Quality",
    "qualities": [["original", "Original"], ["high", "High"], ["medium", "Medium"], ["small", "Small"]],
    "bare": "Without recipe",
    "bare_help": "The settings are not written into the file.",
    "save": "Save",
    "saving": "Preparing…",
    "recipe": "Recipe",
    "copy": "Copy recipe",
    "copied": "Copied.",
    "not_copied": "The browser did not let it be copied: select the text instead.",
    "side": "Side by side",
    "wipe": "Wipe",
    "wipe_at": "Where one video ends and the other begins",
    "play": "Play",
    "pause": "Pause",
    "previous": "Previous frame",
    "next": "Next frame",
    "scrub": "Position",
    "frame_of": "frame {frame} of {frames}",
    "differs": "What differs",
    "same": "Their settings are the same.",
    "all_cells": "All together",
    "made": "Made",
}
FACTS = {
    "task": "Task",
    "prompt": "Prompt",
    "negative": "Negative prompt",
    "model": "Model",
    "size": "Size",
    "frames": "Frames",
    "keyframes": "Keyframes",
    "steps": "Steps",
    "guidance": "Guidance",
    "guidance_2": "Guidance of the second expert",
    "guidance_interval": "Guided at noise",
    "cache": "Cache",
    "seed": "Seed",
    "schedule": "Schedule",
    "color_match": "Colours matched",
    "loras": "LoRAs",
    "sweep": "Sweep",
    "took": "Took",
    "file": "File",
}
OWN_SCHEDULE = "the model's own"
USAGE = "{videos}, {used}"
USAGE_OF = "{videos}, {used} of {quota}"
FRAMES_OF = "{frames} at {fps:g} a second, {seconds:.1f} s"

DROP = {
    "here": "Drop the video: its recipe fills the form",
    "reading": "Reading {name}",
    "failed": "{name} could not be uploaded: it may be too large.",
}
DROP_NO_VIDEO = "{name} is not a video: drop one that was made here, or the recipe beside it."
DROP_NO_RECIPE = "{name} has no recipe inside: it was saved without one, or made by another program."
DROP_MODEL = "{name} was made with the model {model}, which is not on this machine."
DROP_LOST_ONE = "The file of the keyframe in slot {slots} is not here: add it again."
DROP_LOST = "The files of the keyframes in slots {slots} are not here: add them again."
DROP_SWEEP = "That is a sweep: the form has what its videos share."
DRAFT_GONE_ONE = "A file of before the reload is no longer here: {names}. Add it again."
DRAFT_GONE = "Files of before the reload are no longer here: {names}. Add them again."
