// Where the picture lies on the screen: picture pixels (continuous, pixel centres at +0.5) to CSS pixels of the stage and back.
// Pixels need not be square: spacing is mm per pixel [row, column]; the finer side keeps its size, the other is stretched.
class Geometry {
  constructor() {
    this.stage = [1, 1];
    this.size = [1, 1];
    this.aspect = [1, 1];
    this.zoom = 1;
    this.origin = [0, 0];
    this.fitted = true;
  }

  setPicture(width, height, spacing) {
    this.size = [width, height];
    const [row, column] = spacing ?? [1, 1];
    const finest = Math.min(row, column);
    this.aspect = [column / finest, row / finest];
  }

  setStage(width, height) {
    const centre = this.toPicture(this.stage[0] / 2, this.stage[1] / 2);
    this.stage = [Math.max(width, 1), Math.max(height, 1)];
    if (this.fitted) this.fit();
    else this.centre(centre);
  }

  get fitZoom() {
    return Math.min(this.stage[0] / (this.size[0] * this.aspect[0]), this.stage[1] / (this.size[1] * this.aspect[1]));
  }

  get smallest() {
    return Math.min(this.fitZoom, this.oneToOne) / 2;
  }

  get oneToOne() {
    return 1 / (globalThis.devicePixelRatio || 1);
  }

  scale(axis) {
    return this.zoom * this.aspect[axis];
  }

  fit() {
    this.zoom = this.fitZoom;
    this.origin = [0, 1].map((axis) => (this.stage[axis] - this.size[axis] * this.scale(axis)) / 2);
    this.fitted = true;
  }

  centre([x, y]) {
    this.origin = [this.stage[0] / 2 - x * this.scale(0), this.stage[1] / 2 - y * this.scale(1)];
    this._keepInView();
  }

  // Zooms so that what lies under the stage's (left, top) stays there.
  zoomTo(zoom, left = this.stage[0] / 2, top = this.stage[1] / 2) {
    const [x, y] = this.toPicture(left, top);
    this.zoom = Math.min(Math.max(zoom, this.smallest), 64);
    this.origin = [left - x * this.scale(0), top - y * this.scale(1)];
    this.fitted = Math.abs(this.zoom / this.fitZoom - 1) < 1e-3;
    this._keepInView();
  }

  pan(dx, dy) {
    this.origin = [this.origin[0] + dx, this.origin[1] + dy];
    this.fitted = false;
    this._keepInView();
  }

  // A quarter of the stage always shows picture, however far it is dragged.
  _keepInView() {
    this.origin = this.origin.map((start, axis) => {
      const long = this.size[axis] * this.scale(axis), rest = Math.min(long, this.stage[axis] / 4);
      return Math.min(Math.max(start, rest - long), this.stage[axis] - rest);
    });
  }

  // Moves the picture just so far that (x, y) is visible.
  reveal([x, y]) {
    const edge = 24, [left, top] = this.toStage([x, y]);
    const into = (at, long) => (at < edge ? edge - at : at > long - edge ? long - edge - at : 0);
    const dx = into(left, this.stage[0]), dy = into(top, this.stage[1]);
    if (dx || dy) this.pan(dx, dy);
  }

  toStage([x, y]) {
    return [this.origin[0] + x * this.scale(0), this.origin[1] + y * this.scale(1)];
  }

  toPicture(left, top) {
    return [(left - this.origin[0]) / this.scale(0), (top - this.origin[1]) / this.scale(1)];
  }

  contains([x, y]) {
    return x >= 0 && y >= 0 && x < this.size[0] && y < this.size[1];
  }

  // A place told to the server: inside, to a hundredth of a pixel.
  tidy(place) {
    return place.map((end, axis) => Math.min(Math.round(end * 100) / 100, this.size[axis] - 0.01));
  }

  clip([x, y]) {
    return [Math.min(Math.max(x, 0), this.size[0]), Math.min(Math.max(y, 0), this.size[1])];
  }
}

// The length from a to b (picture pixels) in words: mm where spacing is known.
function lengthOf(a, b, spacing) {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  if (!spacing) return `${Math.hypot(dx, dy).toFixed(0)} px`;
  const mm = Math.hypot(dx * spacing[1], dy * spacing[0]);
  return `${mm.toFixed(mm < 10 ? 2 : 1)} mm`;
}
