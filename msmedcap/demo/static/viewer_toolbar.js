// The tools as buttons, the map's controls, the help. One tab stop for the toolbar; arrow keys move inside it.
const ICONS = {
  pan: 'M8 11V5.5a1.5 1.5 0 0 1 3 0V10M11 10V4.5a1.5 1.5 0 0 1 3 0V10M14 10V6a1.5 1.5 0 0 1 3 0v8c0 4-2.5 7-6 7-3 0-4.5-1.500-6-4.500l-2-4c-.6-1.400 1-2.600 2.200-1.600L8 13.500V9',
  window: 'M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M12 3v18M12 6h6M12 9.500h8M12 13h8.800M12 16.500h7',
  scroll: 'M5 8h14v12H5zM7 5h10M9 2h6M12 11v6M9.500 13.500L12 11l2.500 2.500M9.500 15L12 17.500L14.500 15',
  on: 'M12 4a8 8 0 1 0 0 16a8 8 0 1 0 0-16M12 8.500v7M8.500 12h7',
  beside: 'M5 5h14v14H5zM8.500 12h7',
  box: 'M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M4 11v2M20 11v2M11 4h2M11 20h2',
  place: 'M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M12 1v6M12 17v6M1 12h6M17 12h6',
  ruler: 'M3 16L16 3l5 5L8 21zM7 12l2 2M10 9l3 3M13 6l2 2',
  undo: 'M9 6L4 11l5 5M4 11h10a6 6 0 0 1 0 12',
  clear: 'M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13M10.500 11v6M13.500 11v6',
  out: 'M10.500 4a6.500 6.500 0 1 0 0 13a6.500 6.500 0 1 0 0-13M15.500 15.500L21 21M7.500 10.500h6',
  in: 'M10.500 4a6.500 6.500 0 1 0 0 13a6.500 6.500 0 1 0 0-13M15.500 15.500L21 21M7.500 10.500h6M10.500 7.500v6',
  fit: 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5M8 8h8v8H8z',
  one: 'M6 7l2-1.500V18M18 7l2-1.500V18M13 9.500v.1M13 14.500v.1',
  invert: 'M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M12 3a9 9 0 0 1 0 18z',
  full: 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5M4 4l6 6M20 4l-6 6M20 20l-6-6M4 20l6-6',
  help: 'M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M9.300 9.300a2.700 2.700 0 1 1 4 2.300c-1 .6-1.300 1-1.300 2.200M12 16.800v.2',
  wipe: 'M12 2v20M4 6h5M4 10h5M4 14h5M4 18h5M15 5h5v14h-5zM8 12H5M16 12h3',
  eye: 'M2 12c3-5 6.500-7 10-7s7 2 10 7c-3 5-6.500 7-10 7s-7-2-10-7M12 9a3 3 0 1 0 0 6a3 3 0 1 0 0-6',
};
// [name, label, key, what it does]; tools keep one of them pressed.
const TOOLS = [
  ['pan', 'Pan', 'H', 'Move the picture (also: middle button, or Space held)'],
  ['window', 'Window', 'W', 'Drag sideways for width, up and down for level (also: right button)'],
  ['scroll', 'Frames', 'S', 'Scroll through frames with the wheel or a drag'],
  ['on', 'Point on', 'P', 'Click on the structure to outline it; click a point to remove it'],
  ['beside', 'Point off', 'N', 'Click what does not belong to the structure'],
  ['box', 'Box', 'B', 'Drag a box around the structure, or click two corners'],
  ['place', 'Compare', 'L', 'Choose a place; the map shows what looks like it to the model'],
  ['ruler', 'Ruler', 'M', 'Drag to measure; drag an end to correct it'],
];
const ACTIONS = [
  ['undo', 'Undo', 'Ctrl+Z', 'Take back the last point or box'],
  ['clear', 'Clear', 'Shift+Delete', 'Remove all points, the box and the rulers'],
  ['out', 'Zoom out', '−', 'Zoom out'],
  ['in', 'Zoom in', '+', 'Zoom in'],
  ['fit', 'Fit', '0', 'Show the whole picture'],
  ['one', '1:1', 'Z', 'One pixel of the picture on one pixel of the screen'],
  ['invert', 'Invert', 'I', 'Swap black and white'],
  ['full', 'Full screen', 'F', 'Full screen; Escape leaves it'],
  ['help', 'Keys', '?', 'All keys'],
];
const TOGGLES = ['invert', 'full', 'help'];
const GROUPS = [['pan', 'window', 'scroll'], ['on', 'beside', 'box', 'undo', 'clear'], ['place', 'ruler'], ['out', 'in', 'fit', 'one'], ['invert', 'full', 'help']];
const MORE_KEYS = [
  ['1 – 9', 'Windows of the list, in its order'],
  ['Arrow keys', 'Move the cursor of a point, box, ruler or comparison; else move the picture, change the window, or the frame. Shift: ten times as far'],
  ['Enter', 'Set a point, a corner or an end where the cursor is'],
  ['Delete', 'Remove the point under the cursor, or the last ruler'],
  ['Page Up, Page Down', 'Frame before, next frame (Home, End: first, last)'],
  ['O', 'Show or hide the map and the outlines'],
  ['V', 'Before/after slider (then arrow keys move it)'],
  ['[ and ]', 'Map fainter, stronger'],
  ['C', 'Caption this view again'],
  ['Escape', 'Drop what is being drawn; close this list'],
];

function make(name, settings = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, text] of Object.entries(settings)) {
    if (text === true) made.setAttribute(key, '');
    else if (text !== false && text !== null) made.setAttribute(key, text);
  }
  made.append(...children);
  return made;
}

function icon(name) {
  const drawn = node('svg', { viewBox: '0 0 24 24', width: 20, height: 20, 'aria-hidden': 'true', focusable: 'false' });
  drawn.append(node('path', { d: ICONS[name] }));
  return drawn;
}

class Toolbar {
  constructor(app, bar, signal) {
    this.app = app;
    this.bar = bar;
    this.buttons = {};
    const known = new Map([...TOOLS, ...ACTIONS].map((item) => [item[0], item]));
    for (const group of GROUPS) {
      const box = make('div', { class: 'mm-v-group' });
      for (const name of group) box.append(this._button(...known.get(name)));
      bar.append(box);
      if (group.includes('window')) bar.append(this._windows());
    }
    this.stops = [...bar.querySelectorAll('button, select')];
    this.stops.forEach((stop, i) => (stop.tabIndex = i ? -1 : 0));
    bar.addEventListener('click', (event) => this._click(event), { signal });
    bar.addEventListener('keydown', (event) => this._move(event), { signal });
    bar.addEventListener('focusin', (event) => this._stop(event.target), { signal });
    this.windows.addEventListener('change', () => app.usePreset(this.windows.selectedIndex), { signal });
    // Numbers only where they fit: a cut one says something else. The picture's corner has those in use.
    new ResizeObserver(() => {
      const roomy = this.windows.clientWidth > 190;
      if (roomy !== this.roomy) this.roomy = roomy, app.draw();
    }).observe(this.windows);
  }

  _button(name, label, key, tip) {
    const tool = TOOLS.some((item) => item[0] === name), pressed = tool || TOGGLES.includes(name) ? 'false' : null;
    const shortcut = key.replace('Ctrl', 'Control').replace('−', '-');
    const button = make(
      'button',
      { type: 'button', 'data-name': name, title: `${tip} (${key})`, 'aria-label': label, 'aria-pressed': pressed, 'aria-keyshortcuts': shortcut },
      icon(name),
      make('span', { 'aria-hidden': 'true' }, label),
    );
    this.buttons[name] = button;
    return button;
  }

  _windows() {
    this.windows = make('select', { 'aria-label': 'Window', title: 'Window (keys 1 to 9)' });
    return make('div', { class: 'mm-v-group' }, this.windows);
  }

  _click(event) {
    const button = event.target.closest('button');
    if (!button || button.getAttribute('aria-disabled') === 'true') return;
    this.app.command(button.dataset.name);
  }

  _stop(target) {
    if (this.stops.includes(target)) for (const stop of this.stops) stop.tabIndex = stop === target ? 0 : -1;
  }

  _move(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const steps = { ArrowRight: 1, ArrowLeft: -1 }, at = this.stops.indexOf(event.target);
    const go = event.key === 'Home' ? 0 : event.key === 'End' ? this.stops.length - 1 : at + (steps[event.key] ?? 0);
    if (at < 0 || go === at) return;
    this.stops[(go + this.stops.length) % this.stops.length].focus();
    event.preventDefault();
    event.stopPropagation();
  }

  show() {
    const { app, buttons } = this, { open } = app;
    for (const [name] of TOOLS) buttons[name].setAttribute('aria-pressed', String(app.tool === name));
    buttons.invert.setAttribute('aria-pressed', String(app.inverted));
    buttons.full.setAttribute('aria-pressed', String(app.isFull));
    buttons.help.setAttribute('aria-pressed', String(!app.parts.help.hidden));
    const off = { window: !app.canWindow, scroll: app.frames < 2, undo: !app.prompts.past.length, clear: !app.prompts.any && !app.rulers.length };
    for (const [name, button] of Object.entries(buttons)) {
      const disabled = off[name] || (!open && !['help', 'full'].includes(name));
      button.setAttribute('aria-disabled', String(Boolean(disabled)));
    }
    this._showWindows();
  }

  _showWindows() {
    const { app, windows } = this, presets = app.open ? app.value.window?.presets ?? [] : [];
    const names = presets.map(({ name, w, l, table }, i) => {
      const plain = `${i < 9 ? `${i + 1}: ` : ''}${name}`, whole = `${plain} (${short(w)} / ${short(l)})`;
      return table || !this.roomy || whole.length > 27 ? plain : whole;
    });
    const manual = presets.length && app.window.name === null ? [`${short(app.window.w)} / ${short(app.window.l)}`] : [];
    const text = JSON.stringify([names, manual.length > 0]);
    if (text !== this.listed) {
      this.listed = text;
      const options = [...names, ...manual].map((name) => make('option', {}, name));
      windows.replaceChildren(...(options.length ? options : [make('option', {}, app.open ? 'Colours' : 'Window')]));
    }
    if (manual.length && windows.options[names.length].textContent !== manual[0]) windows.options[names.length].textContent = manual[0];
    const at = presets.findIndex(({ name }) => name === app.window.name);
    const index = manual.length ? names.length : Math.max(at, 0);
    if (windows.selectedIndex !== index) windows.selectedIndex = index;
    windows.disabled = !presets.length;
    const title = `${presets.length ? `${windows.selectedOptions[0]?.textContent ?? ''}: ` : ''}window (keys 1 to 9)`;
    if (windows.title !== title) windows.title = title;
  }
}

// A number as a reader wants it: no digits that mean nothing.
const short = (number) => String(Number(number.toPrecision(4))).replace('-', '\u2212');

class MapBar {
  constructor(app, box, colours, signal) {
    this.app = app;
    const range = (label, key, title) => {
      const input = make('input', { type: 'range', min: 0, max: 100, step: 1, 'aria-label': label, title, value: app.look[key] });
      const number = make('output', {});
      input.addEventListener('input', () => app.setLook({ [key]: Number(input.value) }), { signal });
      this[key] = { input, number };
      return make('label', { class: 'mm-v-range' }, make('span', {}, label), input, number);
    };
    const toggle = (name, label, tip) => {
      const button = make('button', { type: 'button', title: tip, 'aria-label': label, 'aria-pressed': 'false' }, icon(name), make('span', { 'aria-hidden': 'true' }, label));
      button.addEventListener('click', () => button.getAttribute('aria-disabled') !== 'true' && app.command(name), { signal });
      this[name] = button;
      return button;
    };
    this.title = make('strong', { class: 'mm-v-title' });
    this.mark = make('b', {});
    this.ramp = make('i', {}, this.mark);
    this.ends = [make('span', {}), make('span', {})];
    this.peak = make('span', { class: 'mm-v-peak' });
    this.bar = make('span', { class: 'mm-v-scale', role: 'img' }, this.ends[0], this.ramp, this.ends[1], this.peak);
    this.colours = make('select', { 'aria-label': 'Colours of the map' }, ...Object.keys(colours).map((name) => make('option', {}, name)));
    this.colours.addEventListener('change', () => app.setLook({ colours: this.colours.value }), { signal });
    box.append(
      make('div', { class: 'mm-v-group' }, toggle('eye', 'Overlays', 'Show or hide the map and the outlines (O)'), toggle('wipe', 'Before/after', 'Before/after slider (V)')),
      make('div', { class: 'mm-v-what' }, this.title, this.bar),
      this.colours,
      make('div', { class: 'mm-v-knobs' }, range('Opacity', 'opacity', 'Opacity of the map ([ and ])'), range('Threshold', 'threshold', 'Only what lies above is coloured')),
    );
  }

  show() {
    const { app } = this, { look } = app, map = app.open ? app.value.map : null;
    this.eye.setAttribute('aria-pressed', String(look.map && look.outlines));
    this.wipe.setAttribute('aria-pressed', String(app.wiping));
    for (const button of [this.eye, this.wipe]) button.setAttribute('aria-disabled', String(!app.open || (!map && !app.value.outlines.length)));
    this.title.textContent = map ? map.title : 'No map';
    this.title.title = map ? map.title : '';
    this.opacity.input.disabled = !map;
    for (const knob of [this.threshold.input, this.colours]) knob.disabled = !map?.grey;
    this.colours.value = look.colours;
    for (const key of ['opacity', 'threshold']) this[key].input.value = look[key];
    this.opacity.number.textContent = `${look.opacity} %`;
    this.bar.hidden = !map?.grey;
    this.threshold.number.textContent = `${look.threshold} %`;
    if (!map?.grey) return;
    const [low, high] = map.range, cut = low + ((high - low) * look.threshold) / 100;
    this.threshold.number.textContent = number3(cut);
    this.ends[0].textContent = number3(low);
    this.ends[1].textContent = number3(high);
    const stops = app.pixels.coloursOf(map, look).filter((_, i) => i % 15 === 0).map(([r, g, b, a = 255]) => `rgb(${r} ${g} ${b} / ${(a / 255).toFixed(3)})`);
    const hidden = `linear-gradient(90deg, var(--mm-v-off) ${look.threshold}%, transparent ${look.threshold}%)`;
    this.ramp.style.background = `${hidden}, linear-gradient(90deg, ${stops.join(',')}), ${CHECKS}`;
    const peak = this._showPeak(map, low, high);
    this.bar.setAttribute('aria-label', `Colour scale from ${number3(low)} to ${number3(high)}${peak && `; ${peak}`}`);
  }

  // The highest value of a word's map, in words and as a mark on the scale: a map may be all but empty.
  _showPeak(map, low, high) {
    this.peak.hidden = this.mark.hidden = map.peak === null;
    if (map.peak === null) return '';
    const share = high > low ? (map.peak - low) / (high - low) : 0;
    this.mark.style.left = `${100 * Math.min(Math.max(share, 0), 1)}%`;
    return (this.peak.textContent = `peak ${number3(map.peak)}`);
  }
}

// What is clear on a map is clear on its scale: squares show through.
const CHECKS = 'repeating-conic-gradient(#8c8c8c 0 25%, #565656 0 50%) 0 0 / 9px 9px';
const number3 = (number) => String(Number(number.toPrecision(3))).replace('-', '\u2212');

function fillHelp(help, close) {
  const row = (keys, text) => make('div', {}, make('dt', {}, make('kbd', {}, keys)), make('dd', {}, text));
  const rows = [...TOOLS, ...ACTIONS].map(([, label, key, tip]) => row(key, tip.startsWith(label) ? tip : `${label}: ${tip[0].toLowerCase()}${tip.slice(1)}`));
  const button = make('button', { type: 'button', 'aria-label': 'Close the list of keys' }, '×');
  button.addEventListener('click', close);
  help.append(make('h3', {}, 'Keys, while the picture area has the focus'), button, make('dl', {}, ...rows, ...MORE_KEYS.map(([keys, text]) => row(keys, text))));
}
