// Brings a part of the page into view: that of a mistake, when a button far from it was pressed. The value is
// {target: a CSS selector, at: a number that is new each time}.
watch('value', () => {
  const target = props.value?.target && document.querySelector(props.value.target);
  target?.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
});
