// A reader at work: login, one case after the other, every change saved at once. Built by review/panel.py after review_form.js.
// `server.review(request)` answers with JSON; what is shown as saved has been acknowledged by the server.
const KEPT = 'mm-review', UNSAVED = 'mm-review-unsaved';
const root = element.querySelector('.mm-review');
let token = sessionStorage.getItem(KEPT) || '';
let home = null, shown = null, view = null, sheet = null, stage = null;
let waiting = JSON.parse(sessionStorage.getItem(UNSAVED) || '[]'), flying = false, sending = null;
let active = 0, counted = 0, touched = 0;

// Only an answer of ours is an answer: what a lost connection or a gate before the server leaves behind is not.
const call = async (asked) => {
  const told = await server.review({...asked, token});
  if (!told || typeof told !== 'object' || 'detail' in told) throw new Error('no answer');
  return told;
};
const random = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (n) => n.toString(16).padStart(2, '0')).join('');
const visible = () => root.isConnected && root.offsetParent !== null;

// Time on a case: while the page is visible and something was done in the last minute.
setInterval(() => {
  const now = performance.now();
  if (shown && visible() && !document.hidden && now - touched < 60000) active += now - counted;
  counted = now;
}, 500);
for (const name of ['pointermove', 'pointerdown', 'keydown', 'wheel']) {
  document.addEventListener(name, () => { touched = performance.now(); }, {passive: true});
}

function say(text, kind = '') {
  if (!view) return;
  view.saved.textContent = text;
  view.saved.className = 'mm-saved ' + kind;
}

// ---- saving: every change is sent at once, those made while one is on its way together after it; what was not
// acknowledged stays in this tab and is sent again, each reader's under that reader's login
const mine = (row) => row.reader === home.study + '/' + home.reader;
function keep() { sessionStorage.setItem(UNSAVED, JSON.stringify(waiting)); }

function change(complete = false) {
  if (!shown) return;
  shown.answers = sheet.read();
  shown.complete = complete || shown.complete;
  const row = {do: 'save', case: shown.case, visit: shown.visit, answers: shown.answers, complete: shown.complete,
    seconds: active / 1000, save: random(), reader: home.study + '/' + home.reader};
  const last = waiting.length - 1;
  if (last >= 0 && waiting[last].case === row.case && waiting[last] !== sending) waiting[last] = row; else waiting.push(row);
  keep();
  say('Saving…');
  pump();
}

async function pump() {
  if (flying) return;
  flying = true;
  for (let tries = 0; home;) {
    const row = sending = waiting.find(mine) || null;
    if (!row) break;
    let told;
    try { told = await call(row); } catch { told = {lost: true}; }
    if (told.lost || told.again || !(told.saved || told.error)) {
      const why = told.again ? 'the server could not keep it' : 'the server does not answer';
      say(`Not saved yet: ${why}. Trying again…`, 'mm-bad');
      await new Promise((go) => setTimeout(go, Math.min(1000 * 2 ** tries++, 8000)));
      continue;
    }
    if (told.login) { flying = false; sending = null; if (home) login(told.error); return; }
    tries = 0;
    waiting.splice(waiting.indexOf(row), 1);
    sending = null;
    keep();
    if (told.error) { say(told.error, 'mm-bad'); continue; }
    if (home && mine(row)) acknowledged(row, told);
  }
  sending = null;
  flying = false;
}

function acknowledged(row, told) {
  Object.assign(home, {at: told.at, states: told.states, first: told.first, open: told.open});
  progress();
  if (!shown || row.case !== shown.case || waiting.some(mine)) return;
  shown.complete = told.complete;
  const time = new Date(told.saved).toLocaleTimeString();
  say(`Saved ${time}` + (told.complete ? ' · finished' : ''), 'mm-good');
  if (!row.finish) return;
  if (told.complete) return go(told.at ?? null);
  sheet.open(told.missing);
  const open = told.missing.length;
  say(`Saved ${time} · ${open} answer${open > 1 ? 's are' : ' is'} still open (marked).`, 'mm-bad');
}

function finish() {
  if (!shown) return;
  change(true);
  const row = waiting[waiting.length - 1];
  if (row) { row.finish = true; keep(); }
}

// ---- screens
async function login(said = '') {
  home = shown = view = null;
  token = '';
  sessionStorage.removeItem(KEPT);
  let told;
  try { told = await call({do: 'studies'}); } catch { told = {error: 'The server does not answer; load the page again.'}; }
  const studies = told.studies || [];
  const study = h('select', {name: 'study', 'aria-label': 'Study'}, ...studies.map((s) => h('option', {value: s.key}, s.title)));
  const alert = h('p', {class: 'mm-status mm-error', role: 'alert'}, said || told.error || '');
  const button = h('button', {type: 'submit', class: 'mm-go'}, 'Begin');
  const form = h('form', {class: 'mm-login', autocomplete: 'off'},
    h('h2', {class: 'mm-title'}, 'Blinded review'),
    studies.length ? h('label', {}, h('span', {}, 'Study'), study) : h('p', {}, 'There is no study on this server yet.'),
    h('label', {}, h('span', {}, 'Your name in the study'), h('input', {name: 'name', required: true, maxlength: 60})),
    h('label', {}, h('span', {}, 'Secret'), h('input', {name: 'secret', type: 'password', required: true, maxlength: 100})),
    alert, button);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    button.disabled = true;
    const given = Object.fromEntries(new FormData(form));
    let answer;
    try { answer = await call({do: 'login', ...given}); } catch { answer = {error: 'The server does not answer; try again.'}; }
    button.disabled = false;
    if (answer.error) { alert.textContent = answer.error; return; }
    token = answer.token;
    sessionStorage.setItem(KEPT, token);
    begin();
  });
  root.replaceChildren(form);
}

async function begin() {
  let told;
  try { told = await call({do: 'home'}); } catch { told = {error: 'The server does not answer; load the page again.'}; }
  if (told.error) return login(told.login && !sessionStorage.getItem(KEPT) ? '' : told.error);
  home = told;
  view = workplace();
  root.replaceChildren(view.whole);
  progress();
  await pump();
  go(home.at);
}

function workplace() {
  const parts = {saved: h('span', {class: 'mm-saved', role: 'status', 'aria-live': 'polite'}), bar: h('progress', {'aria-label': 'Finished cases'}),
    count: h('span', {class: 'mm-count'}), list: h('select', {'aria-label': 'Go to a case', class: 'mm-jump'}),
    part: h('strong', {class: 'mm-part'}), facts: h('span', {class: 'mm-facts'})};
  const button = (text, title, act, kind = '') => {
    const made = h('button', {type: 'button', title, class: kind}, text);
    made.addEventListener('click', act);
    return made;
  };
  parts.before = button('‹', 'Case before ( [ )', () => step(-1));
  parts.after = button('›', 'Case after ( ] )', () => step(1));
  parts.list.addEventListener('change', () => { if (parts.list.value) go(Number(parts.list.value)); });
  stage = pictureStage();
  sheet = drawForm(home.form, () => change(), (letter) => stage.over(letter));
  const keys = h('details', {class: 'mm-keys'}, h('summary', {}, 'Keys'),
    h('dl', {}, ...home.form.keys.flatMap(([key, what]) => [h('dt', {}, key), h('dd', {}, what)])));
  parts.keys = keys;
  const end = h('div', {class: 'mm-end'}, button('Finish case, open next', 'Ctrl+Enter', finish, 'mm-go'), keys);
  parts.work = h('div', {class: 'mm-work'}, h('div', {class: 'mm-left-side'}, stage.whole, parts.facts), h('div', {class: 'mm-right-side'}, sheet.whole, end));
  parts.done = h('p', {class: 'mm-done', hidden: true});
  parts.whole = h('div', {},
    h('div', {class: 'mm-review-bar'}, parts.part, parts.bar, parts.count, parts.before, parts.list, parts.after, parts.saved,
      button(`Log out ${home.reader}`, 'What is saved stays', leave, 'mm-leave')),
    h('details', {class: 'mm-about', open: !home.states.some(Boolean)}, h('summary', {}, home.title), h('p', {}, home.instructions)),
    parts.done, parts.work);
  return parts;
}

async function leave() {
  sheet.flush();
  await pump();
  try { await call({do: 'logout'}); } catch { /* the login ends by itself */ }
  login();
}

function progress() {
  if (!view || !home) return;
  const {states, first, open} = home, place = shown ? shown.place : lastDone();
  const [from, to] = place >= first ? [first, states.length] : [0, first];
  const done = states.slice(from, to).filter((state) => state === 2).length;
  view.bar.max = to - from;
  view.bar.value = done;
  view.count.textContent = `${done} of ${to - from} finished`;
  view.part.textContent = states.length === first ? '' : place >= first ? 'Part 2: with maps' : 'Part 1';
  const part = (i) => states.length === first ? `Case ${i + 1}` : i < first ? `Part 1, case ${i + 1}` : `Part 2, case ${i - first + 1}`;
  const cases = states.slice(open[0], open[1]).map((state, i) => h('option', {value: open[0] + i, selected: shown && open[0] + i === place},
    part(open[0] + i) + (state === 2 ? ' ✓' : state ? ' …' : '')));
  view.list.replaceChildren(...(shown ? [] : [h('option', {value: '', selected: true}, 'Go to a case')]), ...cases);
  view.before.disabled = shown ? place <= open[0] : view.done.hidden;
  view.after.disabled = !shown || place >= open[1] - 1;
}

// Where one is while no case is shown: at the end of the first part, or of all.
function lastDone() {
  const {states, first, open, at} = home;
  return at === null ? states.length - 1 : at >= first && open[0] < first ? first - 1 : at;
}

function step(by) {
  if (!shown) { if (by < 0 && !view.done.hidden) go(lastDone()); return; }
  const to = shown.place + by;
  if (to >= home.open[0] && to < home.open[1]) go(to);
}

// The second part closes the first: whoever has seen maps does not judge the captions alone any more.
function between(place) {
  shown = null;
  view.work.hidden = true;
  view.done.hidden = false;
  const button = h('button', {type: 'button', class: 'mm-go'}, 'Open part 2');
  button.addEventListener('click', () => go(place, true));
  view.done.replaceChildren('Part 1 is finished. Part 2 shows the cases again, with maps of where each caption\'s system looked. ' +
    'Once it is opened, part 1 cannot be changed any more; until then its cases are in the list above. ', button);
  progress();
  button.focus();
}

// A case appears whole: the picture, all captions and maps at once, when all of them are ready.
async function go(place, opened = false) {
  sheet.flush();
  if (place === null || place === undefined) {
    shown = null;
    view.work.hidden = true;
    view.done.hidden = false;
    view.done.replaceChildren('All cases are finished. Thank you. You can go back to a case of the list above; what you change there counts.');
    progress();
    return view.list.focus();
  }
  if (place >= home.first && home.open[0] < home.first && !opened) return between(place);
  sheet.rest(true);
  let told;
  try { told = await call({do: 'case', place}); } catch { told = {error: 'The server does not answer; open the case again.'}; }
  if (told.login) return login(told.error);
  if (told.error) {
    progress();
    sheet.rest(!shown);
    if (shown) sheet.focus(); else view.list.focus();
    return say(told.error, 'mm-bad');
  }
  const unsaved = waiting.findLast((row) => row.case === told.case);
  const pictures = [told.picture, ...told.captions.map((caption) => caption.map).filter(Boolean)];
  await Promise.all(pictures.map((uri) => { const image = new Image(); image.src = uri; return image.decode().catch(() => null); }));
  shown = told;
  active = 0;
  counted = touched = performance.now();
  Object.assign(home, {states: told.states, first: told.first, open: told.open});
  view.work.hidden = false;
  view.done.hidden = true;
  stage.show(told);
  sheet.show(told, unsaved ? unsaved.answers : told.answers);
  view.facts.textContent = told.facts;
  say(unsaved ? 'Saving…' : told.saved ? `Saved ${new Date(told.saved).toLocaleTimeString()}` + (told.complete ? ' · finished' : '') : '');
  progress();
  sheet.focus();
}

// ---- keys: they act while the review is in sight and no text is being written
document.addEventListener('keydown', (event) => {
  if (!visible() || !view || event.altKey || event.metaKey || event.defaultPrevented) return;
  if (event.ctrlKey) { if (shown && event.key === 'Enter') { event.preventDefault(); finish(); } return; }
  const at = event.target, inList = at === view.list && '[]'.includes(event.key);
  const writing = !inList && at.matches?.('textarea, select, input[type=text], input[type=range], input[type=password]');
  if (writing || (at !== document.body && !root.contains(at))) return;
  const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
  const acts = {'[': () => step(-1), ']': () => step(1), '+': () => stage.zoom(1.25), '=': () => stage.zoom(1.25), '-': () => stage.zoom(0.8),
    H: () => stage.whole_(), '?': () => { view.keys.open = !view.keys.open; }};
  if (!shown && key !== '[') return;
  const done = acts[key] ? (acts[key](), true) : sheet.key(key, event);
  if (done) event.preventDefault();
});
window.addEventListener('pagehide', () => sheet?.flush());
window.addEventListener('beforeunload', (event) => { if (waiting.length) event.preventDefault(); });

if (token) begin(); else login();
