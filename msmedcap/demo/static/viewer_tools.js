// What the pointer does: one gesture at a time, chosen by button and tool. Two fingers always zoom and move.
const STILL = 4; // CSS pixels a pointer may tremble and still click
const REACH = 12; // CSS pixels around a mark that still hit it

class Pointers {
  constructor(app, stage, signal) {
    this.app = app;
    this.stage = stage;
    this.down = new Map();
    this.gesture = null;
    const on = (name, act, settings = {}) => stage.addEventListener(name, act.bind(this), { signal, ...settings });
    on('pointerdown', this._press);
    on('pointermove', this._move);
    on('pointerup', this._release);
    on('pointercancel', this._release);
    on('pointerleave', () => app.hover(null));
    on('wheel', this._wheel, { passive: false });
    on('contextmenu', (event) => event.preventDefault());
    on('dblclick', (event) => app.tool === 'pan' && this._own(event) && app.fit());
  }

  _own(event) {
    return !event.target.closest('.mm-v-frames, .mm-v-wipe');
  }

  _at(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  _press(event) {
    if (!this.app.open || !this._own(event)) return;
    const at = this._at(event);
    this.stage.setPointerCapture(event.pointerId);
    this.down.set(event.pointerId, at);
    if (this.down.size === 2) {
      this.gesture?.cancel?.();
      this.gesture = this._pinch();
    } else if (this.down.size === 1) {
      this.app.cursor = null;
      this.gesture = this._start(event, at);
    }
    if (event.button === 1) event.preventDefault(); // no automatic scrolling
  }

  _move(event) {
    const at = this._at(event);
    if (event.pointerType !== 'touch' || !this.down.size) this.app.hover(at);
    if (this.down.has(event.pointerId)) {
      const before = this.down.get(event.pointerId);
      this.down.set(event.pointerId, at);
      this.gesture?.move?.(at, before);
    } else if (this.gesture?.hover) this.gesture.move(at, at);
  }

  _release(event) {
    if (!this.down.delete(event.pointerId)) return;
    const { gesture } = this;
    if (event.type === 'pointercancel') gesture?.cancel?.();
    else if (!gesture?.end?.(this._at(event))) this.gesture = null; // a gesture that returns true goes on without a button
    if (this.down.size) this.gesture = this._pan();
  }

  _start(event, at) {
    const { app } = this;
    if (this.gesture?.hover && event.button === 0) return this.gesture; // the second of two clicks
    if (event.button === 1 || app.spaceHeld) return this._pan();
    if (event.button === 2) return this._window();
    if (event.button !== 0) return null;
    const tools = { pan: this._pan, window: this._window, scroll: this._scroll, on: this._point, beside: this._point, box: this._drag, ruler: this._drag, place: this._point };
    return tools[app.tool].call(this, at);
  }

  _pan() {
    return { move: (at, before) => this.app.pan(at[0] - before[0], at[1] - before[1]) };
  }

  _pinch() {
    const { app, down } = this;
    const measure = () => {
      const [a, b] = [...down.values()];
      return { apart: Math.hypot(a[0] - b[0], a[1] - b[1]), middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2] };
    };
    let last = measure();
    return {
      move: () => {
        if (down.size < 2) return;
        const next = measure();
        app.pan(next.middle[0] - last.middle[0], next.middle[1] - last.middle[1]);
        app.zoomBy(next.apart / Math.max(last.apart, 1), ...next.middle);
        last = next;
      },
    };
  }

  _window() {
    const { app } = this;
    if (!app.canWindow) return null;
    const step = Math.max(app.window.w, app.windowStep * 20) / 250;
    let moved = false;
    return {
      move: (at, before) => {
        moved = true;
        app.moveWindow((at[0] - before[0]) * step, (at[1] - before[1]) * step);
      },
      end: () => void (moved && app.tellWindow()),
      cancel: () => moved && app.tellWindow(),
    };
  }

  _scroll(start) {
    const first = this.app.frame;
    return { move: (at) => this.app.showFrame(first + Math.round((at[1] - start[1]) / 8)) };
  }

  // A click acts; a drag with the same tool moves the picture, so nothing has to be put down to look around.
  _point(start) {
    let dragged = false;
    return {
      move: (at, before) => {
        dragged ||= Math.hypot(at[0] - start[0], at[1] - start[1]) > STILL;
        if (dragged) this.app.pan(at[0] - before[0], at[1] - before[1]);
      },
      end: () => void (dragged || this.app.act(start)),
    };
  }

  // Box and ruler: a drag from corner to corner, or a click on each.
  _drag(start) {
    const { app } = this, kind = app.tool, grabbed = kind === 'ruler' ? app.grabRuler(start, REACH) : null;
    const from = grabbed ?? app.geometry.clip(app.geometry.toPicture(...start));
    const gesture = { hover: false, clicks: grabbed ? 1 : 0 };
    app.draft = { kind, from, to: app.geometry.clip(app.geometry.toPicture(...start)) };
    gesture.move = (at) => {
      app.draft = { kind, from, to: app.geometry.clip(app.geometry.toPicture(...at)) };
      app.draw();
    };
    gesture.end = (at) => {
      gesture.move(at);
      gesture.clicks += 1;
      const still = Math.hypot(at[0] - start[0], at[1] - start[1]) <= STILL;
      if (still && gesture.clicks === 1) {
        gesture.hover = true; // wait for the second click
        app.say(`First ${kind === 'box' ? 'corner' : 'end'} set. Click the other one, or press Escape.`);
        return true;
      }
      app.finishDraft();
      return false;
    };
    gesture.cancel = () => app.dropDraft();
    app.draw();
    return gesture;
  }

  stop() {
    this.gesture = null;
  }

  _wheel(event) {
    const { app } = this;
    if (!app.open || !this._own(event)) return;
    const lines = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    if (app.tool === 'scroll' && app.frames > 1 && !event.ctrlKey) {
      event.preventDefault();
      app.stepFrame(Math.sign(lines));
      return;
    }
    // Zoomed out to the whole picture the wheel belongs to the page again.
    if (lines > 0 && !event.ctrlKey && app.geometry.zoom <= app.geometry.fitZoom * 1.001) return;
    event.preventDefault();
    const factor = Math.exp(-Math.min(Math.max(lines, -200), 200) * (event.ctrlKey ? 0.01 : 0.002));
    const least = event.ctrlKey ? app.geometry.smallest : Math.min(app.geometry.fitZoom, app.geometry.zoom);
    app.zoomTo(Math.max(app.geometry.zoom * factor, least), ...this._at(event));
  }
}
