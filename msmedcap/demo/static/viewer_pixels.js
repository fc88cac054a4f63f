// The picture's pixels: unpacks values, applies windows and colour maps, and paints the canvas.
const unpackText = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// The opposite of packed_grid() of viewer/encoding.py: {data, width, height, bytes} to a Uint8Array or Uint16Array, row by row.
async function unpackGrid(grid) {
  const flow = new Blob([unpackText(grid.data)]).stream().pipeThrough(new DecompressionStream('deflate'));
  const planes = new Uint8Array(await new Response(flow).arrayBuffer());
  const count = grid.width * grid.height, wide = grid.bytes === 2;
  const values = wide ? new Uint16Array(count) : planes.slice(0, count);
  if (wide) for (let i = 0; i < count; i++) values[i] = planes[i] | (planes[count + i] << 8);
  for (let row = 0; row < count; row += grid.width) {
    for (let i = row + 1; i < row + grid.width; i++) values[i] += values[i - 1];
  }
  return { ...grid, data: null, values };
}

async function loadImage(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  return image;
}

function blank(width, height) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

// Stored value to an opaque grey pixel, one entry for each; the window is linear, as the server's manual windows are.
function windowTable(grid, window, inverted) {
  const table = new Uint32Array(grid.bytes === 2 ? 65536 : 256);
  for (let i = 0; i < table.length; i++) {
    const share = (i * grid.slope + grid.intercept - window.l) / window.w + 0.5;
    const grey = Math.floor(Math.min(Math.max(share, 0), 1) * 255 + 0.5);
    table[i] = 0xff000000 | ((inverted ? 255 - grey : grey) * 0x010101);
  }
  return table;
}

// The part [x0, y0, x1, y1] (grid pixels) of a grid through a table, on `sheet`: {canvas, image}, made new where it does not fit.
function windowedPart(grid, table, [x0, y0, x1, y1], sheet) {
  const width = x1 - x0, height = y1 - y0, { values } = grid;
  if (sheet.image?.width !== width || sheet.image.height !== height) {
    sheet.canvas = blank(width, height);
    sheet.image = new ImageData(width, height);
  }
  const out = new Uint32Array(sheet.image.data.buffer);
  for (let y = 0, o = 0; y < height; y++) {
    let i = (y0 + y) * grid.width + x0;
    for (let x = 0; x < width; x++) out[o++] = table[values[i++]];
  }
  sheet.canvas.getContext('2d').putImageData(sheet.image, 0, 0);
  return sheet.canvas;
}

// A grey map in colours [r, g, b] or [r, g, b, opacity]; what lies under the threshold (0-255) is clear.
function colouredMap(grid, colours, threshold) {
  const canvas = blank(grid.width, grid.height), context = canvas.getContext('2d');
  const image = context.createImageData(grid.width, grid.height), out = new Uint32Array(image.data.buffer);
  const table = new Uint32Array(256);
  for (let i = threshold; i < 256; i++) {
    const [r, g, b, a = 255] = colours[i];
    table[i] = ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }
  for (let i = 0; i < out.length; i++) out[i] = table[grid.values[i]];
  context.putImageData(image, 0, 0);
  return canvas;
}

// Two digits for each of a colour's parts (rgb, or rgba with an opacity), 256 colours in a row.
const readColours = (text) => {
  const parts = text.length / 512;
  return Array.from({ length: 256 }, (_, i) => Array.from({ length: parts }, (_, j) => parseInt(text.substr(2 * (parts * i + j), 2), 16)));
};

// Holds what was sent, by key, and paints it. Keys outlive the element: gradio may build it anew without sending pictures again.
class Pixels {
  constructor(colours, fading, store) {
    this.colours = colours;
    this.fading = fading;
    this.store = store;
    this.made = new Map();
    this.sheets = [{}, {}];
    this.changes = 0;
    this.painted = [];
  }

  async keep(kind, key, load) {
    this.store.set(kind, { key, what: await load() });
    this.changes++;
  }

  // What is kept of a kind, or null where it is not what `key` names.
  held(kind, key) {
    const item = this.store.get(kind);
    return item && item.key === key ? item.what : null;
  }

  // Remembers one result a slot, as long as the arguments it was made from are the same.
  once(slot, parts, make) {
    const last = this.made.get(slot);
    if (last && last.parts.length === parts.length && last.parts.every((part, i) => part === parts[i])) return last.result;
    const result = make();
    this.made.set(slot, { parts, result });
    this.changes++;
    return result;
  }

  // The base as [canvas or image, x0, y0, x1, y1 in the picture's pixels], finest that is needed and here.
  base(app) {
    const { value, geometry } = app, fine = geometry.zoom * (globalThis.devicePixelRatio || 1);
    const picture = this.held('picture', value.view), whole = [0, 0, value.width, value.height];
    const grid = value.values_key && this.held('values', value.values_key);
    const shrunk = grid ? grid.width < value.width : picture && picture.naturalWidth < value.width;
    const needed = shrunk && fine > (grid ? grid.width : picture.naturalWidth) / value.width;
    const full = needed ? this.held('full', value.full_key) : null;
    app.wantsFull = Boolean(needed && !full);
    if (full?.naturalWidth && !app.windowMoved) return [full, ...whole];
    if (full?.values && !app.window.table) return this._part(app, full, grid?.invert);
    // The server's own picture wherever it is right: exactly what the models saw.
    if (picture && !app.windowMoved) return [picture, ...whole];
    if (!grid || app.window.w === null) return picture ? [picture, ...whole] : null;
    const table = this._table(app, grid, grid.invert, 'preview table');
    return [this.once('preview', [grid, table], () => windowedPart(grid, table, [0, 0, grid.width, grid.height], this.sheets[0])), ...whole];
  }

  _table(app, grid, inverted, slot) {
    const { w, l } = app.window;
    return this.once(slot, [grid, w, l], () => windowTable(grid, app.window, inverted));
  }

  // Of a large grid only what is in view is windowed.
  _part(app, grid, inverted) {
    const { geometry, value } = app, share = [grid.width / value.width, grid.height / value.height];
    const [x0, y0] = geometry.clip(geometry.toPicture(0, 0)), [x1, y1] = geometry.clip(geometry.toPicture(...geometry.stage));
    const part = [Math.floor(x0 * share[0]), Math.floor(y0 * share[1]), Math.ceil(x1 * share[0]), Math.ceil(y1 * share[1])];
    const table = this._table(app, grid, inverted, 'full table');
    if (part[2] <= part[0] || part[3] <= part[1]) return null;
    const shown = this.once('full', [table, ...part], () => windowedPart(grid, table, part, this.sheets[1]));
    return [shown, part[0] / share[0], part[1] / share[1], part[2] / share[0], part[3] / share[1]];
  }

  map(app) {
    const { value, look } = app;
    const item = value.map && this.held('map', value.map.key);
    if (!item) return null;
    if (item.naturalWidth) return item;
    const threshold = Math.round(look.threshold * 2.55);
    const colours = this.coloursOf(value.map, look);
    return this.once('map', [item, colours, threshold], () => colouredMap(item, colours, threshold));
  }

  // The chosen colours as a map needs them: with opacities where its 0 means that there is nothing.
  coloursOf(map, look) {
    return (map.fades ? this.fading : this.colours)[look.colours];
  }

  // Whether the canvas shows all this already: a large picture takes tens of milliseconds to paint, and most draws (a place
  // marked, an outline arriving, the pointer's words) change lines alone.
  _shows(...parts) {
    const same = this.painted.length === parts.length && this.painted.every((part, i) => part === parts[i]);
    this.painted = parts;
    return same;
  }

  // The canvas has lost what was painted.
  forget() {
    this.painted = [];
  }

  paint(app, canvas) {
    const { geometry, look, value } = app, dense = globalThis.devicePixelRatio || 1;
    const [wide, high] = geometry.stage.map((long) => Math.round(long * dense));
    const base = this.base(app), over = base && look.map && this.map(app);
    // On whole pixels of the screen, so that a picture at 1:1 is not blurred.
    const place = ([x0, y0, x1, y1]) => {
      const [left, top, right, bottom] = [...geometry.toStage([x0, y0]), ...geometry.toStage([x1, y1])].map((end) => Math.round(end * dense) / dense);
      return [left, top, right - left, bottom - top];
    };
    const under = base ? place(base.slice(1)) : [], above = over ? place([0, 0, value.width, value.height]) : [];
    const from = app.wiping ? app.wipeAt * geometry.stage[0] : 0, quality = app.exact ? 'low' : 'high'; // while a window is dragged, speed before polish
    const smooth = geometry.zoom * dense < 6;
    if (this._shows(this.changes, canvas, wide, high, base?.[0], over, ...under, ...above, from, look.opacity, app.inverted, smooth, quality)) return;
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    const context = canvas.getContext('2d');
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.fillStyle = '#000';
    context.fillRect(0, 0, ...geometry.stage);
    if (!base) return;
    context.imageSmoothingEnabled = smooth;
    context.imageSmoothingQuality = quality;
    context.drawImage(base[0], ...under);
    if (app.inverted) {
      context.globalCompositeOperation = 'difference';
      context.fillStyle = '#fff';
      context.fillRect(...under);
      context.globalCompositeOperation = 'source-over';
    }
    if (!over) return;
    context.save();
    context.beginPath();
    context.rect(from, 0, geometry.stage[0] - from, geometry.stage[1]);
    context.clip();
    context.imageSmoothingEnabled = true;
    context.globalAlpha = look.opacity / 100;
    context.drawImage(over, ...above);
    context.restore();
  }

  // What lies at a place in words: HU, grey or colours; empty outside or before the pixels are here.
  read(app, [x, y]) {
    const { value, geometry } = app;
    if (!geometry.contains([x, y])) return '';
    const coarse = value.values_key && this.held('values', value.values_key), fine = this.held('full', value.full_key);
    const grid = fine?.values ? fine : coarse;
    if (coarse && grid) {
      const at = Math.floor((y * grid.height) / value.height) * grid.width + Math.floor((x * grid.width) / value.width);
      const number = grid.values[at] * grid.slope + grid.intercept;
      const text = Number.isInteger(grid.slope) && Number.isInteger(grid.intercept) ? `${number}` : number.toPrecision(4);
      return (coarse.unit ? `${text} ${coarse.unit}` : `value ${text}`).replace('-', '\u2212');
    }
    const picture = this.held('picture', value.view);
    if (!picture || value.values_key) return '';
    const context = this.once('readable', [picture], () => {
      const made = blank(picture.naturalWidth, picture.naturalHeight).getContext('2d', { willReadFrequently: true });
      made.drawImage(picture, 0, 0);
      return made;
    });
    const share = picture.naturalWidth / value.width;
    const [r, g, b] = context.getImageData(Math.floor(x * share), Math.floor(y * share), 1, 1).data;
    return `RGB ${r} ${g} ${b}`;
  }
}
