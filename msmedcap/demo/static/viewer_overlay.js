// Lines over the picture: outlines of structures, points, box, rulers, the compared place, the keyboard's cursor.
// Outlines live in the picture's own coordinates under one transform, so moving the picture does not rebuild them.
const SVG = 'http://www.w3.org/2000/svg';

function node(name, attributes = {}, children = []) {
  const made = document.createElementNS(SVG, name);
  for (const [key, text] of Object.entries(attributes)) made.setAttribute(key, text);
  made.append(...children);
  return made;
}

const pathOf = (polygons) =>
  polygons.map((polygon) => `M${polygon.map(([x, y]) => `${x} ${y}`).join('L')}Z`).join('');

class Overlay {
  constructor(svg) {
    this.svg = svg;
    this.clip = node('rect', { x: 0, y: 0, width: 0, height: 0 });
    this.shapes = node('g');
    this.marks = node('g');
    const clip = node('clipPath', { id: `mm-v-clip-${Math.random().toString(36).slice(2)}` }, [this.clip]);
    this.wiped = node('g', { 'clip-path': `url(#${clip.id})` }, [this.shapes]);
    svg.append(clip, this.wiped, this.marks);
    this.outlines = '';
    this.areas = [];
  }

  setOutlines(outlines) {
    const text = JSON.stringify(outlines);
    if (text === this.outlines) return;
    this.outlines = text;
    const lines = outlines.map(({ name, colour, dash, polygons }) => {
      const d = pathOf(polygons);
      const line = node('path', { d, class: `mm-v-outline${dash ? ' mm-v-dash' : ''}`, style: `stroke:${colour}`, 'data-name': name });
      return node('g', {}, [node('path', { d, class: 'mm-v-halo' }), line]);
    });
    this.shapes.replaceChildren(...lines);
    this.areas = outlines.map(({ name, polygons }) => [name, new Path2D(pathOf(polygons))]);
  }

  // The names of the outlined structures at a place of the picture.
  names([x, y]) {
    const measure = (this.measure ??= document.createElement('canvas').getContext('2d'));
    const hit = this.areas.filter(([, path]) => measure.isPointInPath(path, x, y, 'evenodd'));
    return [...new Set(hit.map(([name]) => name))];
  }

  draw(app) {
    const { geometry } = app, [wide, high] = geometry.stage;
    const from = app.wiping ? app.wipeAt * wide : 0;
    this.clip.setAttribute('x', from);
    this.clip.setAttribute('width', wide - from);
    this.clip.setAttribute('height', high);
    const matrix = [geometry.scale(0), 0, 0, geometry.scale(1), ...geometry.origin];
    this.shapes.setAttribute('transform', `matrix(${matrix.join(' ')})`);
    this.shapes.style.display = app.look.outlines ? '' : 'none';
    this.marks.replaceChildren(...this._marks(app));
  }

  *_marks(app) {
    const at = (point) => app.geometry.toStage(point);
    const { box, points } = app.prompts.now;
    if (box) yield this._rectangle(at(box.slice(0, 2)), at(box.slice(2)), 'mm-v-box');
    const { draft } = app;
    if (draft?.kind === 'box') yield this._rectangle(at(draft.from), at(draft.to), 'mm-v-box mm-v-draft');
    for (const ruler of app.rulers) yield* this._ruler(app, ruler[0], ruler[1], at);
    if (draft?.kind === 'ruler') yield* this._ruler(app, draft.from, draft.to, at);
    for (const [x, y, label] of points) yield this._point(at([x, y]), label);
    if (app.value.place) yield this._place(at(app.value.place));
    if (app.cursor) yield this._cursor(at(app.cursor));
  }

  _rectangle([x0, y0], [x1, y1], kind) {
    const place = { x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) };
    return node('g', {}, [node('rect', { ...place, class: 'mm-v-halo' }), node('rect', { ...place, class: kind })]);
  }

  _point([x, y], label) {
    const arms = label ? 'M-4 0H4M0 -4V4' : 'M-4 0H4';
    return node('g', { transform: `translate(${x} ${y})`, class: `mm-v-point ${label ? 'mm-v-on' : 'mm-v-beside'}` }, [
      label ? node('circle', { r: 8 }) : node('rect', { x: -7.5, y: -7.5, width: 15, height: 15, rx: 2 }),
      node('path', { d: arms }),
    ]);
  }

  *_ruler(app, a, b, at) {
    const [x0, y0] = at(a), [x1, y1] = at(b), line = { x1: x0, y1: y0, x2: x1, y2: y1 };
    yield node('line', { ...line, class: 'mm-v-halo' });
    yield node('line', { ...line, class: 'mm-v-ruler' });
    for (const [x, y] of [[x0, y0], [x1, y1]]) yield node('circle', { cx: x, cy: y, r: 4, class: 'mm-v-end' });
    const text = node('text', { x: (x0 + x1) / 2 + 8, y: (y0 + y1) / 2 - 8, class: 'mm-v-length' });
    text.textContent = lengthOf(a, b, app.value.spacing);
    yield text;
  }

  _place([x, y]) {
    const d = 'M-12 0H-4M4 0H12M0 -12V-4M0 4V12';
    const both = [node('path', { d, class: 'mm-v-halo' }), node('path', { d, class: 'mm-v-compare' })];
    return node('g', { transform: `translate(${x} ${y})`, class: 'mm-v-place-mark' }, both);
  }

  _cursor([x, y]) {
    const d = 'M-16 0H16M0 -16V16';
    const both = [node('path', { d, class: 'mm-v-halo' }), node('path', { d, class: 'mm-v-aim' })];
    return node('g', { transform: `translate(${x} ${y})`, class: 'mm-v-cursor' }, both);
  }
}
