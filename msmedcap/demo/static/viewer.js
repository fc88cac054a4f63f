// The picture area: keeps what the server sent and what the visitor set, and draws both. See viewer/state.py for the value.
// Runs inside gradio's js_on_load: `element`, `trigger`, `watch` and `props` are given; COLOURS and FADING are put in by viewer/area.py.
// Gradio's "always_last" runs a deferred event with the data of the one before it. Each kind of event therefore has one object
// that is filled anew: whichever run reads it reads the latest.
const told = Object.fromEntries(['prompt', 'place', 'window', 'frame', 'again', 'full', 'missing'].map((name) => [name, {}]));
const tell = (name, data = {}) => trigger(name, Object.assign(told[name], data));
const EVENTS = Object.fromEntries(Object.keys(told).map((name) => [name, (data) => tell(name, data)]));
const NO_WINDOW = { w: null, l: null, name: null, table: false };
const EMPTY = { width: 1, height: 1, spacing: null, points: [], box: null, outlines: [], place: null, map: null, window: null, frame: 0, frames: 1 };

class Viewer {
  constructor(root, kept) {
    this.root = root;
    const part = (name) => root.querySelector(`.mm-v-${name}`);
    const names = ['bar', 'stage', 'canvas', 'svg', 'top', 'right', 'empty', 'wipe', 'frames', 'map', 'place', 'measure', 'view', 'said', 'help'];
    this.parts = Object.fromEntries(names.map((name) => [name, part(name)]));
    const [colours, fading] = [COLOURS, FADING].map((all) => Object.fromEntries(Object.entries(all).map(([name, text]) => [name, readColours(text)])));
    this.value = EMPTY;
    this.open = false;
    this.kept = kept;
    this.look = kept.look ??= { opacity: 55, threshold: 0, colours: Object.keys(COLOURS)[0], map: true, outlines: true };
    this.tool = kept.tool ?? 'pan';
    this.window = NO_WINDOW;
    Object.assign(this, { windowMoved: false, inverted: kept.inverted ?? false, wiping: false, wipeAt: 0.5, cursor: null, draft: null, spaceHeld: false });
    this.geometry = kept.geometry ??= new Geometry();
    this.pixels = new Pixels(colours, fading, (kept.pixels ??= new Map()));
    this.prompts = new Prompts((told) => EVENTS.prompt(told));
    this.measured = kept.measured ??= new Map();
    this.queue = Promise.resolve();
    const stop = new AbortController();
    this.overlay = new Overlay(this.parts.svg);
    this.toolbar = new Toolbar(this, this.parts.bar, stop.signal);
    this.mapBar = new MapBar(this, this.parts.map, colours, stop.signal);
    this.pointers = new Pointers(this, this.parts.stage, stop.signal);
    this.keys = new Keys(this, root, this.parts.stage, stop.signal);
    fillHelp(this.parts.help, () => this.command('help'));
    this._wireWipe(stop.signal);
    this._wireFrames(stop.signal);
    document.addEventListener('fullscreenchange', () => this.draw(), { signal: stop.signal });
    this.parts.canvas.addEventListener('contextrestored', () => (this.pixels.forget(), this.draw()), { signal: stop.signal });
    new ResizeObserver(([entry]) => {
      if (!root.isConnected) return stop.abort();
      this.geometry.setStage(entry.contentRect.width, entry.contentRect.height);
      this.draw();
    }).observe(this.parts.stage);
    this.draw();
  }

  // ---- what the server says -----------------------------------------------------------------------------------------

  // Values are taken one after the other, each when its pictures are decoded, so an old one never ends on top.
  update(message) {
    this.queue = this.queue.then(() => this._load(message)).catch((error) => console.error('picture area:', error));
    return this.queue;
  }

  async _load(message) {
    const value = message ? JSON.parse(message) : null;
    if (!value) {
      this.open = false;
      this.value = EMPTY;
      this.kept.scan = null;
      return this._adopted(true);
    }
    const { pixels } = this, jobs = [];
    if (value.picture) jobs.push(pixels.keep('picture', value.view, () => loadImage(value.picture)));
    if (value.values) jobs.push(pixels.keep('values', value.values_key, () => unpackGrid(value.values)));
    if (value.full) {
      const load = () => (value.full.uri ? loadImage(value.full.uri) : unpackGrid(value.full));
      jobs.push(pixels.keep('full', value.full_key, load));
    }
    if (value.map?.uri) jobs.push(pixels.keep('map', value.map.key, () => loadImage(value.map.uri)));
    if (value.map?.grid) jobs.push(pixels.keep('map', value.map.key, () => unpackGrid(value.map.grid)));
    await Promise.all(jobs);
    this._adopt(value);
  }

  _adopt(value) {
    const before = this.value, afresh = this.kept.scan !== value.scan, anew = afresh || !this.open;
    this.kept.scan = value.scan;
    this.open = true;
    this.value = { ...value, picture: null, values: null, full: null };
    if (afresh) {
      Object.assign(this, { cursor: null, draft: null, wantedFrame: null, inverted: (this.kept.inverted = false) });
      this.pointers.stop();
      this.measured.clear();
    }
    if (anew || before.view !== value.view) {
      const { w, l, name, table } = value.window ?? NO_WINDOW;
      const preset = value.window?.presets.some((item) => item.name === name);
      this.window = { w, l, table, name: preset ? name : null };
      this.windowMoved = false;
    }
    if (this.wantedFrame === value.frame) this.wantedFrame = null;
    if (value.tool && (anew || value.tool !== before.tool)) this.chooseTool(value.tool);
    this.prompts.adopt(value.points, value.box, anew);
    const lacks = !this.pixels.held('picture', value.view) || (value.values_key && !this.pixels.held('values', value.values_key));
    if ((lacks || (value.map && !this.pixels.held('map', value.map.key))) && this.askedFor !== value.view) {
      this.askedFor = value.view;
      EVENTS.missing({ view: value.view });
    } else if (!lacks) this.askedFor = null;
    this._adopted(afresh);
  }

  _adopted(afresh) {
    const { value, parts } = this;
    const shape = [value.width, value.height, value.spacing].join();
    if (afresh || shape !== this.kept.shape) {
      this.kept.shape = shape;
      this.geometry.setPicture(value.width, value.height, value.spacing);
      this.geometry.fit();
    }
    this.root.dataset.empty = String(!this.open);
    parts.empty.hidden = this.open;
    parts.canvas.setAttribute('aria-label', this.open ? value.alt : 'Nothing is open');
    parts.stage.setAttribute('aria-label', this.open ? `Scan: ${value.alt}. Press question mark for keys.` : 'Scan: nothing is open');
    if (value.map || value.outlines.length) this.wiping &&= true;
    else this.wiping = false;
    this.overlay.setOutlines(value.outlines);
    this.root.dataset.view = value.view ?? '';
    this.draw();
  }

  // ---- drawing ------------------------------------------------------------------------------------------------------

  draw() {
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      this._draw();
    });
  }

  _draw() {
    const { parts } = this;
    this.wantsFull = false;
    this.pixels.paint(this, parts.canvas);
    this.overlay.draw(this);
    this.toolbar.show();
    this.mapBar.show();
    this._showFrames();
    this._showWipe();
    this._showWords();
    parts.stage.dataset.tool = this.tool;
    if (this.open && this.wantsFull) this._askFull(this.value.full_key);
  }

  _showWords() {
    const { parts, open, value, geometry } = this, at = this.cursor ?? this.hovered;
    const inside = open && at && geometry.contains(at);
    const hint = open ? TOOLS.find((tool) => tool[0] === this.tool)[3] : '';
    const words = inside ? [`x ${Math.floor(at[0])}  y ${Math.floor(at[1])}`, this.pixels.read(this, at), ...this.overlay.names(at)] : [hint];
    parts.place.textContent = words.filter(Boolean).join('  ');
    parts.place.classList.toggle('mm-v-hint', !inside);
    const { w, l, name, table } = this.window, numbers = w === null || table ? '' : `W ${short(w)}  L ${short(l)}`;
    parts.top.textContent = open ? [numbers, name, this.inverted && 'inverted'].filter(Boolean).join('  ') : '';
    parts.view.textContent = open ? `${Math.round((100 * geometry.zoom) / geometry.oneToOne)} %` : '';
    parts.right.textContent = open ? `${value.width} × ${value.height}` : '';
    const last = this.draft?.kind === 'ruler' ? [this.draft.from, this.draft.to] : this.rulers.at(-1);
    const unknown = value.spacing ? value.spacing_note : 'no spacing known';
    parts.measure.textContent = open && last ? `${lengthOf(...last, value.spacing)}${unknown && ` (${unknown})`}` : '';
  }

  // Once a picture; again after a while, should the answer have been lost.
  _askFull(key) {
    const now = performance.now();
    if (this.asked?.key === key && now - this.asked.since < 30000) return;
    this.asked = { key, since: now };
    EVENTS.full({ view: this.value.view });
  }

  say(text) {
    clearTimeout(this.telling); // a word on the cursor must not follow the word on what was done there
    this.parts.said.textContent = text;
  }

  // ---- what the visitor does ----------------------------------------------------------------------------------------

  command(name) {
    const { geometry } = this;
    const acts = {
      undo: () => this.prompts.undo() && this.say('Taken back.'),
      clear: () => (this.prompts.clear(), this.measured.delete(this.value.frame), this.say('Cleared.')),
      out: () => this.zoomBy(1 / 1.25),
      in: () => this.zoomBy(1.25),
      fit: () => this.fit(),
      one: () => this.zoomTo(geometry.oneToOne),
      invert: () => (this.inverted = this.kept.inverted = !this.inverted),
      full: () => this._fullScreen(),
      help: () => this._help(),
      wipe: () => this._wipe(),
      eye: () => this.setLook({ map: !this.look.map, outlines: !this.look.map }),
      fainter: () => this.setLook({ opacity: Math.max(this.look.opacity - 5, 0) }),
      stronger: () => this.setLook({ opacity: Math.min(this.look.opacity + 5, 100) }),
      again: () => EVENTS.again(),
      delete: () => this._delete(),
    };
    if (TOOLS.some((item) => item[0] === name)) this.chooseTool(name);
    else acts[name]();
    this.draw();
  }

  chooseTool(name) {
    if ((name === 'window' && !this.canWindow) || (name === 'scroll' && this.frames < 2)) return;
    this.dropDraft();
    this.tool = this.kept.tool = name;
    if (!AIMING.includes(name)) this.cursor = null;
    this.draw();
  }

  setLook(change) {
    Object.assign(this.look, change);
    this.draw();
  }

  hover(at) {
    this.hovered = at && this.open ? this.geometry.toPicture(...at) : null;
    this.wording ??= requestAnimationFrame(() => {
      this.wording = null;
      this._showWords();
    });
  }

  pan(dx, dy) {
    this.geometry.pan(dx, dy);
    this.draw();
  }

  fit() {
    this.geometry.fit();
    this.draw();
  }

  zoomTo(zoom, ...at) {
    this.geometry.zoomTo(zoom, ...at);
    this.draw();
  }

  zoomBy(factor, ...at) {
    this.zoomTo(this.geometry.zoom * factor, ...at);
  }

  // A click at [left, top] of the stage with a point's or the comparison's tool.
  act(at) {
    const place = this.geometry.toPicture(...at);
    if (!this.geometry.contains(place)) return;
    const hit = this.prompts.now.points.findIndex((point) => Math.hypot(...this.geometry.toStage(point).map((end, i) => end - at[i])) <= REACH);
    if (this.tool === 'place') this._compare(this.geometry.tidy(place));
    else if (hit >= 0) this._removePoint(hit);
    else this._addPoint(this.geometry.tidy(place));
    this.draw();
  }

  _addPoint([x, y]) {
    this.prompts.add([x, y, this.tool === 'beside' ? 0 : 1]);
    this.say(`Point ${this.tool === 'beside' ? 'beside' : 'on'} the structure set at ${Math.floor(x)}, ${Math.floor(y)}.`);
  }

  _removePoint(index) {
    this.prompts.remove(index);
    this.say('Point removed.');
  }

  _compare([x, y]) {
    this.value = { ...this.value, place: [x, y] };
    EVENTS.place({ x, y });
    this.say(`Comparing with the place at ${Math.floor(x)}, ${Math.floor(y)}.`);
  }

  finishDraft() {
    const { kind, from, to } = this.draft;
    this.draft = null;
    if (kind === 'ruler') {
      if (Math.hypot(to[0] - from[0], to[1] - from[1]) > 0) this.rulers.push([from, to]);
      this.say(`Length ${lengthOf(from, to, this.value.spacing)} ${this.value.spacing_note ?? ''}`);
    } else if (Math.abs(to[0] - from[0]) >= 1 && Math.abs(to[1] - from[1]) >= 1) {
      this.prompts.setBox([...from, ...to].map((end) => Math.round(end * 100) / 100));
      this.say('Box set.');
    }
    this.draw();
  }

  dropDraft() {
    const had = Boolean(this.draft);
    this.draft = null;
    this.pointers?.stop();
    this.draw();
    return had;
  }

  get rulers() {
    if (!this.measured.has(this.value.frame)) this.measured.set(this.value.frame, []);
    return this.measured.get(this.value.frame);
  }

  // The other end of a ruler whose end lies at [left, top]; the ruler is taken up to be set anew.
  grabRuler(at, reach) {
    for (const [i, ruler] of this.rulers.entries()) {
      const end = ruler.findIndex((point) => Math.hypot(...this.geometry.toStage(point).map((side, axis) => side - at[axis])) <= reach);
      if (end >= 0) {
        this.rulers.splice(i, 1);
        return ruler[1 - end];
      }
    }
    return null;
  }

  _delete() {
    const { points } = this.prompts.now, reach = REACH / this.geometry.zoom;
    const near = this.cursor ? points.findIndex((point) => Math.hypot(point[0] - this.cursor[0], point[1] - this.cursor[1]) <= reach) : -1;
    if (near >= 0) this._removePoint(near);
    else if (this.rulers.pop()) this.say('Ruler removed.');
  }

  escape() {
    if (!this.parts.help.hidden) return this._help(), true;
    if (this.dropDraft()) return this.say('Dropped.'), true;
    if (this.pinned) return this._fullScreen(), true;
    return false;
  }

  // ---- the keyboard's cursor ----------------------------------------------------------------------------------------

  moveCursor(dx, dy) {
    const { geometry } = this, step = Math.max(1, Math.round(4 / geometry.zoom));
    const from = this.cursor ?? geometry.clip(geometry.toPicture(geometry.stage[0] / 2, geometry.stage[1] / 2));
    const to = geometry.clip([from[0] + dx * step, from[1] + dy * step]);
    this.cursor = to.map((end, axis) => Math.min(Math.floor(end), geometry.size[axis] - 1) + 0.5);
    geometry.reveal(this.cursor);
    if (this.draft) this.draft.to = this.cursor;
    clearTimeout(this.telling);
    this.telling = setTimeout(() => this.cursor && this.say(`Cursor at ${this.cursor.map(Math.floor).join(', ')}: ${this.pixels.read(this, this.cursor)}`), 400);
    this.draw();
  }

  actAtCursor() {
    if (!this.cursor) this.moveCursor(0, 0);
    const at = this.cursor;
    if (this.draft) this.finishDraft();
    else if (this.tool === 'box' || this.tool === 'ruler') {
      this.draft = { kind: this.tool, from: at, to: at };
      this.say('First end set. Move on and press Enter again.');
    } else this.act(this.geometry.toStage(at));
    this.draw();
  }
}
