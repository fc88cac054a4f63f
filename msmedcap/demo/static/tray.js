// The tray's list: arrow keys choose, Enter opens, Delete removes. The server redraws it; the place and the focus stay.
let active = null, focused = false;
const options = () => [...element.querySelectorAll('[role="option"]')];
const mark = (scroll) => {
  const list = element.querySelector('[role="listbox"]'), all = options();
  if (!list) return;
  const at = all.find((option) => option.dataset.id === active)
    ?? all.find((option) => option.getAttribute('aria-selected') === 'true') ?? all[0];
  active = at.dataset.id;
  for (const option of all) option.classList.toggle('mm-active', option === at);
  list.setAttribute('aria-activedescendant', at.id);
  if (scroll) at.scrollIntoView({block: 'nearest', inline: 'nearest'});
};
const remove = (id) => {
  const all = options(), place = all.findIndex((option) => option.dataset.id === id);
  active = (all[place + 1] ?? all[place - 1])?.dataset.id ?? null;
  trigger('remove_scan', {id});
};
element.addEventListener('focusin', (event) => { focused = Boolean(event.target.closest('[role="listbox"]')); });
element.addEventListener('focusout', (event) => { if (event.relatedTarget) focused = false; });
element.addEventListener('click', (event) => {
  const option = event.target.closest('[role="option"]');
  if (!option) return;
  if (event.target.closest('[data-remove]')) return remove(option.dataset.id);
  active = option.dataset.id;
  mark(false);
  trigger('open_scan', {id: active});
});
element.addEventListener('keydown', (event) => {
  if (!event.target.closest('[role="listbox"]') || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = options(), place = all.findIndex((option) => option.dataset.id === active);
  const steps = {ArrowDown: place + 1, ArrowRight: place + 1, ArrowUp: place - 1, ArrowLeft: place - 1, Home: 0, End: all.length - 1};
  if (event.key in steps) {
    active = all[Math.min(Math.max(steps[event.key], 0), all.length - 1)].dataset.id;
    mark(true);
  } else if (event.key === 'Enter' || event.key === ' ') trigger('open_scan', {id: active});
  else if (event.key === 'Delete') remove(active);
  else return;
  event.preventDefault();
});
watch('value', () => {
  mark(false);
  if (focused && document.activeElement === document.body) element.querySelector('[role="listbox"]')?.focus({preventScroll: true});
});
mark(false);
