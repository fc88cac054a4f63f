// The owner's view of a study: log in, read, download. Built by review/results_panel.py; nothing is kept in the browser.
const box = element.querySelector('.mm-owner');
let key = '';
const ask = async (asked) => {
  const none = {error: 'The server does not answer; try again.'};
  try {
    const told = await server.results({...asked, token: key});
    return told && typeof told === 'object' && !('detail' in told) ? told : none;
  } catch { return none; }
};

async function door(said = '') {
  key = '';
  const told = await ask({do: 'studies'});
  const studies = told.studies || [];
  box.innerHTML = '<form class="mm-login" autocomplete="off"><label><span>Study</span><select name="study"></select></label>' +
    '<label><span>The owner’s secret</span><input name="secret" type="password" required maxlength="100"></label>' +
    '<p class="mm-status mm-error" role="alert"></p><button type="submit" class="mm-go">Show the results</button></form>';
  const form = box.querySelector('form'), alert = box.querySelector('[role=alert]');
  for (const study of studies) form.study.add(new Option(study.title, study.key));
  alert.textContent = said || told.error || '';
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    form.querySelector('button').disabled = true;
    const answer = await ask({do: 'login', study: form.study.value, secret: form.secret.value});
    form.querySelector('button').disabled = false;
    if (answer.error) { alert.textContent = answer.error; return; }
    key = answer.token;
    show();
  });
}

async function show() {
  box.innerHTML = '<p class="mm-status" role="status">Counting…</p>';
  const told = await ask({do: 'results'});
  if (told.error) return door(told.error);
  box.innerHTML = told.html;
}

box.addEventListener('click', async (event) => {
  const button = event.target.closest('button[data-do]');
  if (!button) return;
  if (button.dataset.do === 'leave') { await ask({do: 'logout'}); return door(); }
  if (button.dataset.do === 'again') return show();
  button.disabled = true;
  const told = await ask({do: 'export', file: button.dataset.file});
  button.disabled = false;
  if (told.error) return door(told.error);
  const bytes = Uint8Array.from(atob(told.data), (c) => c.charCodeAt(0));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes], {type: told.type}));
  link.download = told.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
door();
