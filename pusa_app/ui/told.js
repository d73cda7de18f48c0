// What the page was told last. It goes back with every question of the clock, so that only news comes.
//
// Two answers may cross: then news that belongs to `base`, what was told before, comes on top of something else. Nobody
// knows now what the page shows, and it is told everything again.
let at = '';
watch('value', () => {
  const told = props.value || {};
  const lost = told.base && told.base !== at;
  if (lost) { at = ''; props.value = {}; } else at = told.at || '';
  document.dispatchEvent(new CustomEvent('pusa-told', { detail: { lost } }));  // to the clock
});
