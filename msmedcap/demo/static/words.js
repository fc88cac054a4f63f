// The words of the captions: one tab stop for each card, arrow keys from word to word, Enter or a click chooses one.
const all = () => [...element.querySelectorAll('[data-word]')];
const keyOf = (word) => `${word.closest('[data-system]').dataset.system} ${word.dataset.word}`;
let last = null;
// One object for every event: gradio's always_last runs a deferred event with the data of the one before.
const told = {};

const reach = (word, preventScroll = true) => {
  for (const other of word.parentElement.querySelectorAll('[data-word]')) other.tabIndex = other === word ? 0 : -1;
  word.focus({preventScroll});
};
// Where the page is one column the picture is far above the captions. The focus stays on the word.
const seePicture = () => {
  if (!window.matchMedia('(max-width: 860px)').matches) return;
  const still = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
  document.querySelector('.mm-v-stage')?.scrollIntoView({block: 'nearest', behavior: still ? 'auto' : 'smooth'});
};
const choose = (word) => {
  for (const other of all()) other.setAttribute('aria-pressed', String(other === word));
  trigger('word', Object.assign(told, {system: word.closest('[data-system]').dataset.system, word: Number(word.dataset.word)}));
  seePicture();
};

element.addEventListener('click', (event) => {
  const word = event.target.closest('[data-word]');
  if (!word || window.getSelection().toString()) return;
  reach(word);
  choose(word);
});
element.addEventListener('keydown', (event) => {
  const word = event.target.closest('[data-word]');
  if (!word || event.ctrlKey || event.metaKey || event.altKey) return;
  const own = [...word.parentElement.querySelectorAll('[data-word]')], at = own.indexOf(word);
  const to = {ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0, End: own.length - 1}[event.key];
  if (to !== undefined) reach(own[Math.min(Math.max(to, 0), own.length - 1)], false);
  else if (event.key === 'Enter' || event.key === ' ') choose(word);
  else return;
  event.preventDefault();
});
// Redrawn cards give the focus back to the same word.
element.addEventListener('focusin', (event) => { const word = event.target.closest('[data-word]'); last = word && keyOf(word); });
element.addEventListener('focusout', (event) => { if (event.relatedTarget) last = null; });
watch('value', () => {
  if (last === null || document.activeElement !== document.body) return;
  const word = all().find((other) => keyOf(other) === last);
  if (word) reach(word);
});
