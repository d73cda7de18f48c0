// The tasks as tabs that wrap: Gradio's own hide all but two of nine behind a menu on a phone.
const bar = element.querySelector('.tasks');
bar.setAttribute('role', 'tablist');
bar.setAttribute('aria-label', props.label || '');
const why = document.createElement('p');
why.className = 'task-why';
why.setAttribute('role', 'status');
element.append(why);
let tabs = [];
const say = text => { why.textContent = text || ''; why.hidden = !text; };

function choose(name) {
  const reason = props.value.tasks.find(task => task.name === name)?.why;
  say(reason);
  if (reason || name === props.value.task) return;
  props.value = { ...props.value, task: name, notice: '' };
  draw();
  trigger('select', { task: name });
}

function draw() {
  const { task, tasks } = props.value;
  if (tabs.length !== tasks.length) {
    bar.replaceChildren();
    tabs = tasks.map(({ name, title }) => {
      const tab = document.createElement('button');
      tab.type = 'button';
      tab.className = 'task';
      tab.textContent = title;
      tab.dataset.task = name;
      tab.setAttribute('role', 'tab');
      tab.addEventListener('click', () => choose(name));
      bar.append(tab);
      return tab;
    });
  }
  for (const tab of tabs) {
    const chosen = tab.dataset.task === task;
    tab.setAttribute('aria-selected', chosen);
    tab.tabIndex = chosen ? 0 : -1;
    const reason = tasks.find(one => one.name === tab.dataset.task).why;
    tab.setAttribute('aria-disabled', !!reason);
    tab.title = reason || '';
  }
}

bar.addEventListener('keydown', event => {
  const at = tabs.indexOf(document.activeElement);
  const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 };
  if (at < 0 || !(event.key in steps)) return;
  event.preventDefault();
  const next = tabs[(steps[event.key] + tabs.length) % tabs.length];
  next.focus();
  choose(next.dataset.task);
});
// Gradio sends the choice of a model twice: the second answer has nothing to say, and takes nothing back.
let seen = '';
function told() {
  draw();
  const { task, model, notice } = props.value;
  if (notice || seen !== `${task} ${model}`) say(notice);
  seen = `${task} ${model}`;
}
watch('value', told);
told();
