// The form of a case, drawn once from the server's data: only texts, pictures and answers change from case to case.
const h = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};

function drawForm(form, changed, look) {
  const {letters, cannot} = form, stops = [], captions = {};
  let live = true;
  const tell = () => { if (live) changed(); };

  // One question with a few answers: a group of radio buttons. Delete takes the answer back.
  function choice(key, label, options) {
    const group = h('fieldset', {class: 'mm-ask', 'data-key': key}, h('legend', {}, label));
    for (const [value, text, said] of options) {
      const input = h('input', {type: 'radio', name: key, value, 'aria-label': said});
      input.addEventListener('change', () => { group.classList.remove('mm-open-question'); tell(); });
      group.append(h('label', {title: said, class: value === cannot ? 'mm-cannot' : ''}, input, h('span', {}, text)));
    }
    stops.push(group);
    return group;
  }

  const scale = (item, key, label) => {
    const ends = Object.fromEntries(item.options);
    const steps = [1, 2, 3, 4, 5].map((n) => [n, String(n), ends[n] ? `${n}, ${ends[n]}` : String(n)]);
    return choice(key, label, [...steps, [cannot, '–', 'cannot judge']]);
  };
  const options = (item) => item.options.map(([value, text]) => [value, text, text]);
  const count = (key, label) => {
    const input = h('input', {type: 'number', min: 0, max: form.most.errors, step: 1, placeholder: 0, 'data-key': key, 'aria-label': label, inputmode: 'numeric'});
    input.addEventListener('input', tell);
    stops.push(input);
    return input;
  };

  function captionCells() {
    return letters.map((letter) => {
      const text = h('p', {class: 'mm-caption'}), base = h('img', {alt: ''}), over = h('img', {alt: '', class: 'mm-over-map'});
      const map = h('button', {type: 'button', class: 'mm-map-button', title: `Show on the picture where caption ${letter} looked`, hidden: true}, base, over);
      map.addEventListener('click', () => look(letter));
      captions[letter] = {text, base, over, map};
      return h('article', {class: 'mm-caption-cell', 'aria-label': `Caption ${letter}`}, h('h3', {}, letter), text, map);
    });
  }

  const question = (item, ...cells) => h('div', {class: 'mm-question'},
    h('div', {class: 'mm-q'}, h('span', {}, item.label), item.help ? h('small', {}, item.help) : ''), ...cells);
  const cell = (letter, inside) => h('div', {class: 'mm-cell', 'data-letter': letter}, inside);

  function ofCaption(item) {
    const cells = letters.map((letter) => {
      const key = `${letter}.${item.key}`, label = `Caption ${letter}: ${item.label}`;
      return cell(letter, item.kind === 'scale' ? scale(item, key, label) : choice(key, label, options(item).map(([v, t]) => [v, v === cannot ? '–' : t, t])));
    });
    const ends = item.kind === 'scale' ? {...item, help: `${item.help}: 1 ${item.options[0][1]}, 5 ${item.options[1][1]}`} : item;
    return question(ends, ...cells);
  }

  function errors() {
    const weights = Object.entries(form.weights);
    const head = h('div', {class: 'mm-question mm-errors-head'}, h('div', {class: 'mm-q'}, h('span', {}, 'Errors, counted'), h('small', {}, 'empty is none')),
      ...letters.map((letter) => cell(letter, h('div', {class: 'mm-pair'}, h('small', {}, 'significant'), h('small', {}, 'not')))));
    return [head, ...form.errors.map((item) => question(item, ...letters.map((letter) => cell(letter, h('div', {class: 'mm-pair'},
      ...weights.map(([weight, name]) => count(`${letter}.error.${item.key}.${weight}`, `Caption ${letter}: ${item.label}, ${name.toLowerCase()}`)))))))];
  }

  const heads = h('div', {class: 'mm-captions-row'}, ...captionCells());
  const rows = [];
  const of = Object.fromEntries(form.case.map((item) => [item.key, item]));
  const prefer = [...letters.map((letter) => [letter, letter, `Caption ${letter}`]), ...options(of.preference)];
  rows.push(h('div', {class: 'mm-whole'}, question(of.preference, choice('preference', of.preference.label, prefer))));
  rows.push(h('div', {class: 'mm-grid'}, ...form.caption.filter((item) => item.kind === 'scale').map(ofCaption), ...errors(),
    ...form.caption.filter((item) => item.kind !== 'scale').map(ofCaption)));
  const comment = h('textarea', {rows: 2, maxlength: form.most.text, 'data-key': 'comment', 'aria-label': of.comment.label, placeholder: of.comment.help});
  let pause = null;
  comment.addEventListener('input', () => { clearTimeout(pause); pause = setTimeout(flush, 400); });
  const flush = () => { if (pause) { clearTimeout(pause); pause = null; tell(); } };
  comment.addEventListener('blur', flush);
  rows.push(h('div', {class: 'mm-whole'}, question(of.confidence, scale(of.confidence, 'confidence', of.confidence.label)), question({label: of.comment.label}, comment)));
  stops.push(comment);
  const whole = h('form', {class: 'mm-sheet', autocomplete: 'off', style: `--letters:${letters.length}`}, heads, ...rows);
  whole.addEventListener('submit', (event) => event.preventDefault());

  const radios = (key) => [...whole.querySelectorAll(`input[name="${CSS.escape(key)}"]`)];
  const current = () => stops.findIndex((stop) => stop === document.activeElement || stop.contains(document.activeElement));
  function stand(at) {
    const stop = stops[Math.min(Math.max(at, 0), stops.length - 1)];
    const inside = stop.tagName === 'FIELDSET' ? stop.querySelector('input:checked') || stop.querySelector('input') : stop;
    inside.focus({preventScroll: true});
    stop.scrollIntoView({block: 'nearest'});
  }
  function pick(key, value) {
    const input = radios(key).find((radio) => radio.value === String(value));
    if (!input) return false;
    input.checked = true;
    input.dispatchEvent(new Event('change'));
    return true;
  }

  return {
    whole, flush,
    read() {
      const answers = {};
      for (const radio of whole.querySelectorAll('input[type=radio]:checked')) answers[radio.name] = /^\d$/.test(radio.value) ? Number(radio.value) : radio.value;
      for (const input of whole.querySelectorAll('input[type=number]')) {
        if (input.value !== '' && input.validity.valid) answers[input.dataset.key] = Number(input.value);
      }
      if (comment.value.trim()) answers.comment = comment.value;
      return answers;
    },
    show(told, answers) {
      live = false;
      for (const {letter, text, map} of told.captions) {
        const part = captions[letter];
        part.text.textContent = text || '(no text)';
        part.map.hidden = !map;
        if (map) { part.base.src = told.picture; part.over.src = map; } else { part.base.removeAttribute('src'); part.over.removeAttribute('src'); }
        part.map.style.aspectRatio = `${told.width} / ${told.height}`;
      }
      for (const radio of whole.querySelectorAll('input[type=radio]')) radio.checked = String(answers[radio.name]) === radio.value;
      for (const input of whole.querySelectorAll('input[type=number]')) input.value = answers[input.dataset.key] || '';
      comment.value = answers.comment || '';
      this.open([]);
      this.rest(false);
      live = true;
    },
    open(keys) {
      for (const stop of stops) stop.classList.toggle('mm-open-question', keys.includes(stop.dataset.key));
      const first = stops.findIndex((stop) => keys.includes(stop.dataset.key));
      if (first >= 0) stand(first);
    },
    rest(still) { whole.inert = still; },
    focus() { stand(0); },
    key(key, event) {
      const at = current(), stop = stops[at];
      if (letters.includes(key)) return pick('preference', key);
      if (key === 'T') return pick('preference', 'tie');
      if (key === 'X') return pick('preference', 'all_bad');
      if (key === 'N') return pick('preference', cannot);
      if (key === 'Enter' && stop && event.target.tagName !== 'BUTTON') { stand(at + (event.shiftKey ? -1 : 1)); return true; }
      if (!stop || stop.tagName !== 'FIELDSET') return false;
      if (key === 'Delete' || key === 'Backspace') {
        for (const radio of radios(stop.dataset.key)) radio.checked = false;
        tell();
        return true;
      }
      if (!/^\d$/.test(key)) return false;
      const choices = radios(stop.dataset.key).filter((radio) => radio.value !== cannot);
      const chosen = key === '0' ? cannot : choices[Number(key) - 1]?.value;
      if (chosen === undefined || !pick(stop.dataset.key, chosen)) return false;
      stand(at + 1);
      return true;
    },
  };
}

// The scan: wheel or keys enlarge, a drag moves, two sliders change brightness and contrast on the screen only.
function pictureStage() {
  const base = h('img', {class: 'mm-case-picture', alt: 'The scan of this case', draggable: 'false'}), over = h('img', {class: 'mm-case-over', alt: '', hidden: true, draggable: 'false'});
  const inside = h('div', {class: 'mm-case-inside'}, base, over);
  const frame = h('div', {class: 'mm-case-stage'}, inside);
  const slider = (label, name) => {
    const input = h('input', {type: 'range', min: 40, max: 250, value: 100, 'aria-label': label});
    input.addEventListener('input', () => inside.style.setProperty(name, input.value / 100));
    return input;
  };
  const brightness = slider('Brightness', '--bright'), contrast = slider('Contrast', '--contrast');
  const note = h('span', {class: 'mm-small', role: 'status'});
  const whole = h('div', {class: 'mm-case-view'}, frame, h('div', {class: 'mm-case-tools'}, h('label', {}, 'Brightness', brightness), h('label', {}, 'Contrast', contrast), note));
  let scale = 1, x = 0, y = 0, maps = {}, on = null, from = null;
  const place = () => { inside.style.transform = `translate(${x}px, ${y}px) scale(${scale})`; };
  function zoom(by) { scale = Math.min(Math.max(scale * by, 1), 12); if (scale === 1) x = y = 0; place(); }
  frame.addEventListener('wheel', (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15); }, {passive: false});
  frame.addEventListener('pointerdown', (event) => { from = [event.clientX - x, event.clientY - y]; frame.setPointerCapture(event.pointerId); });
  frame.addEventListener('pointermove', (event) => { if (from && scale > 1) { [x, y] = [event.clientX - from[0], event.clientY - from[1]]; place(); } });
  frame.addEventListener('pointerup', () => { from = null; });
  const reset = () => { scale = 1; x = y = 0; place(); };
  return {
    whole, zoom, whole_: reset,
    over(letter) {
      on = on === letter ? null : letter;
      over.hidden = !on;
      if (on) over.src = maps[on];
      note.textContent = on ? `Where caption ${on} looked` : '';
    },
    show(told) {
      maps = Object.fromEntries(told.captions.filter((caption) => caption.map).map((caption) => [caption.letter, caption.map]));
      on = null;
      over.hidden = true;
      note.textContent = '';
      base.src = told.picture;
      inside.style.aspectRatio = `${told.width} / ${told.height}`;
      inside.style.setProperty('--ratio', told.width / told.height);
      for (const input of [brightness, contrast]) { input.value = 100; input.dispatchEvent(new Event('input')); }
      reset();
    },
  };
}
