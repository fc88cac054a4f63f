// The legend of segmented structures: its buttons, by mouse and keyboard. What was pressed keeps the focus where it still is.
let last = null;
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-key]');
  if (!button) return;
  const data = button.dataset;
  if ('drop' in data) trigger('drop', {key: Number(data.drop)});
  else if ('point' in data) trigger('unpoint', {index: Number(data.point)});
  else trigger('unbox', {});
});
element.addEventListener('focusin', (event) => { last = event.target.closest('button')?.dataset.key ?? null; });
element.addEventListener('focusout', (event) => { if (event.relatedTarget) last = null; });
watch('value', () => {
  if (last === null || document.activeElement !== document.body) return;
  const same = element.querySelector(`button[data-key="${CSS.escape(last)}"]`);
  (same ?? element.querySelector('button[data-key], .mm-segments'))?.focus({preventScroll: true});
});
