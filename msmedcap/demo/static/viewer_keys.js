// The keyboard: every tool without a pointer. Keys act while the focus is inside the picture area.
const TOOL_KEYS = Object.fromEntries(TOOLS.map(([name, , key]) => [key.toLowerCase(), name]));
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const AIMING = ['on', 'beside', 'box', 'ruler', 'place'];

class Keys {
  constructor(app, root, stage, signal) {
    this.app = app;
    this.stage = stage;
    root.addEventListener('keydown', (event) => this._down(event), { signal });
    root.addEventListener('keyup', (event) => event.key === ' ' && this._space(false), { signal });
    root.addEventListener('focusout', () => this._space(false), { signal });
  }

  _space(held) {
    this.app.spaceHeld = held;
    this.stage.classList.toggle('mm-v-moving', held);
  }

  _down(event) {
    const { app } = this, { target } = event;
    if (event.defaultPrevented) return;
    if (event.key === 'Escape' && app.escape()) return event.preventDefault();
    const onStage = target === this.stage, control = target.closest('input, select, button');
    const own = event.key in ARROWS || ['Home', 'End', 'PageUp', 'PageDown'].includes(event.key);
    if (target.closest('select') || (control?.type === 'range' && own)) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z' && !event.shiftKey) {
      app.command('undo');
      return event.preventDefault();
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const done = (onStage && this._aim(event)) || this._command(event);
    if (done) event.preventDefault();
  }

  // Keys that mean something only on the picture itself.
  _aim(event) {
    const { app } = this;
    if (!app.open) return false;
    if (event.key in ARROWS) return this._arrow(ARROWS[event.key], event.shiftKey);
    if (event.key === 'Enter' || (event.key === ' ' && app.cursor)) {
      if (!AIMING.includes(app.tool)) return false;
      if (!event.repeat) app.actAtCursor();
      return true;
    }
    if (event.key === ' ') {
      this._space(true);
      return true;
    }
    return false;
  }

  _arrow([dx, dy], far) {
    const { app } = this, times = far ? 10 : 1;
    if (AIMING.includes(app.tool)) app.moveCursor(dx * times, dy * times);
    else if (app.tool === 'window' && app.canWindow) {
      app.moveWindow(dx * times * app.windowStep, dy * times * app.windowStep);
      app.tellWindowSoon();
    } else if (app.tool === 'scroll' && app.frames > 1) app.stepFrame((dx || dy) * times);
    else app.pan(-dx * 12 * times, -dy * 12 * times);
    return true;
  }

  _command(event) {
    const { app } = this, key = event.key.toLowerCase();
    if (key === '?') return app.command('help'), true;
    if (key === 'f') return app.command('full'), true;
    if (!app.open) return false;
    if (key in TOOL_KEYS && !event.shiftKey) return app.command(TOOL_KEYS[key]), true;
    if (/^[1-9]$/.test(key)) return app.usePreset(Number(key) - 1), true;
    const commands = {
      i: 'invert', o: 'eye', v: 'wipe', z: 'one', 0: 'fit', '+': 'in', '=': 'in', '-': 'out', c: 'again',
      '[': 'fainter', ']': 'stronger', delete: event.shiftKey ? 'clear' : 'delete', backspace: 'delete',
    };
    if (key in commands) return app.command(commands[key]), true;
    const frames = { pageup: app.frame - 1, pagedown: app.frame + 1, home: 0, end: app.frames - 1 };
    if (key in frames && app.frames > 1) return app.showFrame(frames[key]), true;
    return false;
  }
}
