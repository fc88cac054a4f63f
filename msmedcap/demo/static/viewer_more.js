// Windows, frames, the before/after slider, full screen, help: the rest of what a visitor does, as parts of Viewer.
const soon = (wait, act) => {
  let timer = null;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, wait);
  };
};

Object.defineProperties(Viewer.prototype, {
  canWindow: { get() { return this.open && this.window.w !== null && Boolean(this.pixels.held('values', this.value.values_key)); } },
  frames: { get() { return this.open ? this.value.frames : 1; } },
  frame: { get() { return this.wantedFrame ?? this.value.frame; } },
  isFull: { get() { return document.fullscreenElement === this.root || Boolean(this.pinned); } },
  // The smallest step that shows: 1 for HU, finer where a scan's values are.
  windowStep: { get() { return this.window.w > 64 ? 1 : this.window.w / 64; } },
});

Object.assign(Viewer.prototype, {
  moveWindow(dw, dl) {
    const { w, l } = this.window, least = Math.min(this.windowStep, 1), whole = (number) => (this.windowStep === 1 ? Math.round(number) : number);
    this.exact ??= { w, l };
    this.exact = { w: Math.max(this.exact.w + dw, least), l: this.exact.l + dl };
    this.window = { w: Math.max(whole(this.exact.w), least), l: whole(this.exact.l), name: null, table: false };
    this.windowMoved = true;
    this.draw();
  },

  tellWindow() {
    const { w, l, name, table } = this.window;
    this.exact = null;
    EVENTS.window({ width: table ? null : w, level: table ? null : l, name });
    this.say(table ? `Window ${name}.` : `Window width ${short(w)}, level ${short(l)}${name ? `, ${name}` : ''}.`);
  },

  tellWindowSoon() {
    this.tellLater ??= soon(350, () => this.tellWindow());
    this.tellLater();
  },

  // A preset of numbers shows at once; a lookup table of the file comes with the server's picture.
  usePreset(index) {
    const preset = this.open ? this.value.window?.presets[index] : null;
    if (!preset) return this.draw();
    this.window = { ...preset };
    this.windowMoved = !preset.table && Boolean(this.pixels.held('values', this.value.values_key));
    this.tellWindow();
    this.draw();
  },

  showFrame(index) {
    const next = Math.min(Math.max(index, 0), this.frames - 1);
    if (next === this.frame) return;
    this.wantedFrame = next;
    this.dropDraft();
    this.tellFrame ??= soon(60, () => this.wantedFrame !== null && EVENTS.frame({ index: this.wantedFrame }));
    this.tellFrame();
    this.draw();
  },

  stepFrame(step) {
    this.showFrame(this.frame + step);
  },

  _wireFrames(signal) {
    const { frames } = this.parts, slider = frames.querySelector('input');
    slider.addEventListener('input', () => this.showFrame(Number(slider.value) - 1), { signal });
    frames.addEventListener('click', (event) => {
      const step = event.target.closest('button')?.dataset.step;
      if (step) this.stepFrame(Number(step));
    }, { signal });
  },

  _showFrames() {
    const { frames } = this.parts, slider = frames.querySelector('input');
    frames.hidden = this.frames < 2;
    if (frames.hidden) return;
    slider.max = this.frames;
    slider.value = this.frame + 1;
    slider.setAttribute('aria-valuetext', `Frame ${this.frame + 1} of ${this.frames}`);
    frames.querySelector('output').textContent = `${this.frame + 1} / ${this.frames}`;
  },

  _wipe() {
    if (!this.open || (!this.value.map && !this.value.outlines.length)) return;
    this.wiping = !this.wiping;
    this._showWipe();
    if (this.wiping) this.parts.wipe.focus({ preventScroll: true });
    else if (document.activeElement === document.body) this.parts.stage.focus({ preventScroll: true });
  },

  setWipe(share) {
    this.wipeAt = Math.min(Math.max(share, 0), 1);
    this.draw();
  },

  _wireWipe(signal) {
    const { wipe, stage } = this.parts;
    const follow = (event) => {
      const box = stage.getBoundingClientRect();
      this.setWipe((event.clientX - box.left) / box.width);
    };
    wipe.addEventListener('pointerdown', (event) => {
      wipe.setPointerCapture(event.pointerId);
      event.stopPropagation();
    }, { signal });
    wipe.addEventListener('pointermove', (event) => wipe.hasPointerCapture(event.pointerId) && follow(event), { signal });
    wipe.addEventListener('keydown', (event) => {
      const steps = { ArrowLeft: -0.02, ArrowRight: 0.02, ArrowDown: -0.02, ArrowUp: 0.02, PageDown: -0.1, PageUp: 0.1 };
      const to = event.key === 'Home' ? 0 : event.key === 'End' ? 1 : event.key in steps ? this.wipeAt + steps[event.key] : null;
      if (to === null) return;
      this.setWipe(to);
      event.preventDefault();
      event.stopPropagation();
    }, { signal });
  },

  _showWipe() {
    const { wipe } = this.parts;
    wipe.hidden = !this.wiping;
    wipe.style.left = `${100 * this.wipeAt}%`;
    wipe.setAttribute('aria-valuenow', Math.round(100 * this.wipeAt));
    wipe.setAttribute('aria-valuetext', `${Math.round(100 * this.wipeAt)} percent without overlays`);
  },

  // Where the browser (or a frame around the page) forbids full screen, the area covers the page instead.
  async _fullScreen() {
    if (document.fullscreenElement === this.root) return document.exitFullscreen();
    if (this.pinned) this.pinned = false;
    else {
      try {
        await this.root.requestFullscreen();
      } catch {
        this.pinned = true;
      }
    }
    this.root.classList.toggle('mm-v-pinned', Boolean(this.pinned));
    this.draw();
    return undefined;
  },

  _help() {
    const { help, stage } = this.parts;
    help.hidden = !help.hidden;
    (help.hidden ? stage : help).focus({ preventScroll: true });
    this.draw();
  },
});

// Gradio may build the element anew (a tab, a column that was hidden): what was seen and chosen outlives it.
const shelf = (globalThis.mmViewers ??= new Map());
const shelfKey = element.closest('[id^="mm-"]')?.id ?? 'viewer';
if (!shelf.has(shelfKey)) shelf.set(shelfKey, {});
const viewer = new Viewer(element.querySelector('.mm-viewer'), shelf.get(shelfKey));
element.mmViewer = viewer;
viewer.update(props.value);
watch('value', () => viewer.update(props.value));
