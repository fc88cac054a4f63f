// The points and the box: what the visitor sets, with undo, and how the server's word and the visitor's hand are kept together.
class Prompts {
  constructor(send) {
    this.send = send;
    this.now = { points: [], box: null };
    this.past = [];
    this.pending = [];
  }

  // What the server holds. An echo of something older than what was set since is not taken for news.
  adopt(points, box, afresh) {
    const told = { points, box }, text = JSON.stringify(told);
    if (afresh) {
      this.past = [];
      this.pending = [];
    }
    this.pending = this.pending.filter((item) => performance.now() - item.since < 8000);
    const echo = this.pending.findIndex((item) => item.text === text);
    if (echo >= 0) {
      this.pending.splice(0, echo + (echo === this.pending.length - 1 ? 1 : 0));
      return;
    }
    this.pending = [];
    if (text !== JSON.stringify(this.now)) {
      if (!afresh) this.past.push(this.now);
      this.now = told;
    }
  }

  set(next, remember = true) {
    const since = performance.now();
    if (remember) this.past.push(this.now);
    if (!this.pending.length) this.pending.push({ text: JSON.stringify(this.now), since });
    this.now = next;
    this.pending.push({ text: JSON.stringify(next), since });
    this.send(next);
  }

  add(point) {
    this.set({ ...this.now, points: [...this.now.points, point] });
  }

  remove(index) {
    this.set({ ...this.now, points: this.now.points.filter((_, i) => i !== index) });
  }

  setBox([x0, y0, x1, y1]) {
    this.set({ ...this.now, box: [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)] });
  }

  clear() {
    if (this.any) this.set({ points: [], box: null });
  }

  undo() {
    const before = this.past.pop();
    if (before) this.set(before, false);
    return Boolean(before);
  }

  get any() {
    return this.now.points.length > 0 || this.now.box !== null;
  }
}
