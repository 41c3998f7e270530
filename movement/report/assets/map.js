// The map: outlines on a canvas that can be zoomed and moved. Zones are numbers; the caller gives their colours.

class ZoneMap {
  /** `on`: {hover(zone | null, x, y, byKeyboard), pick(zone, touch)}; x and y are pixels of the canvas. */
  constructor(canvas, on) {
    this.canvas = canvas;
    this.on = on;
    this.context = canvas.getContext("2d");
    // Hits are tested in cells of the grid, on a separate canvas without a transformation.
    this.hits = document.createElement("canvas").getContext("2d");
    this.zones = [];
    this.pointers = new Map();
    this.view = { zoom: 1, x: 0, y: 0 };
    this.fills = null;
    this.origin = this.hovered = this.onlyFill = null;
    new ResizeObserver(() => this.resize()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.up(event));
    canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") this.hover(null); });
    canvas.addEventListener("blur", () => this.hover(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    // The wheel scrolls the page; with Ctrl, which a trackpad's pinch sets, it zooms.
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 240), event.offsetX, event.offsetY);
    }, { passive: false });
  }

  /** A city's outlines: {width, height, metres} of the grid, and the rings of each zone. */
  setCity(grid, rings) {
    this.grid = grid;
    this.borders = new Path2D();
    this.zones = rings.map((parts) => {
      if (!parts.length) return null;
      const path = new Path2D();
      let left = Infinity, top = Infinity, right = -Infinity, bottom = -Infinity;
      for (const ring of parts) {
        path.moveTo(ring[0], ring[1]);
        for (let k = 0; k < ring.length; k += 2) {
          const x = ring[k], y = ring[k + 1];
          path.lineTo(x, y);
          if (x < left) left = x;
          if (x > right) right = x;
          if (y < top) top = y;
          if (y > bottom) bottom = y;
        }
        path.closePath();
      }
      this.borders.addPath(path);
      return { path, left, top, right, bottom, x: (left + right) / 2, y: (top + bottom) / 2,
        area: (right - left) * (bottom - top) };
    });
    const areas = this.zones.filter(Boolean).map((zone) => zone.area).sort((a, b) => a - b);
    this.typical = Math.sqrt(areas[Math.floor(areas.length / 2)]);
    this.hovered = null;
    this.home();
  }

  /** `fills`: the colour of each zone, or null. */
  setFills(fills, origin) {
    this.fills = fills;
    this.origin = origin;
    this.draw();
  }

  /** Dims every zone with another colour; null dims none. */
  emphasise(fill) {
    this.onlyFill = fill;
    this.draw();
  }

  home() {
    this.view = { zoom: 1, x: 0, y: 0 };
    this.draw();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth || !clientHeight) return;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.draw();
  }

  /** Pixels of a cell, and the position of the grid's corner. */
  placement() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const room = 22;
    const fit = Math.min((width - 2 * room) / this.grid.width, (height - 2 * room) / this.grid.height);
    const scale = fit * this.view.zoom;
    return { scale,
      x: width / 2 - this.grid.width * scale / 2 + this.view.x, y: height / 2 - this.grid.height * scale / 2 + this.view.y };
  }

  draw() {
    if (this.frame || !this.grid) return;
    this.frame = requestAnimationFrame(() => { this.frame = null; this.paint(); });
  }

  paint() {
    if (!this.canvas.clientWidth) return;
    if (!this.canvas.width || this.canvas.width !== Math.round(this.canvas.clientWidth * (window.devicePixelRatio || 1))) {
      this.resize();
      return;
    }
    const pen = this.context, ratio = window.devicePixelRatio || 1;
    const { scale, x, y } = this.placement();
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
    pen.lineJoin = "round";
    const nothing = colour("--no-data");
    this.zones.forEach((zone, i) => {
      if (!zone) return;
      const fill = this.fills?.[i];
      pen.globalAlpha = this.onlyFill && fill !== this.onlyFill ? 0.14 : 1;
      pen.fillStyle = fill || nothing;
      pen.fill(zone.path, "evenodd");
    });
    // Zones of a few pixels get thinner borders, which would otherwise hide them.
    pen.globalAlpha = Math.min(Math.max(this.typical * scale / 16, 0.2), 1);
    pen.strokeStyle = colour("--border-zone");
    pen.lineWidth = Math.min(0.9, 0.45 + this.view.zoom * 0.12) / scale;
    pen.stroke(this.borders);
    pen.globalAlpha = 1;
    this.outline(this.hovered, scale, 2.2);
    this.outline(this.origin, scale, 2.6);
    const start = this.zones[this.origin];
    if (start) {
      pen.beginPath();
      pen.arc(start.x, start.y, 5.5 / scale, 0, 2 * Math.PI);
      pen.fillStyle = colour("--origin");
      pen.fill();
      pen.lineWidth = 2.4 / scale;
      pen.strokeStyle = colour("--panel");
      pen.stroke();
    }
    this.canvas.dispatchEvent(new CustomEvent("painted", { detail: { metresPerPixel: this.grid.metres / scale } }));
  }

  /** A zone's border with a halo, visible on every colour of the scale. */
  outline(index, scale, width) {
    const zone = this.zones[index];
    if (!zone) return;
    for (const [line, ink] of [[width + 2.4, "--panel"], [width, "--origin"]]) {
      this.context.lineWidth = line / scale;
      this.context.strokeStyle = colour(ink);
      this.context.stroke(zone.path);
    }
  }

  /** The zone at a point of the canvas; of several the smallest, so that it can be reached. */
  at(px, py) {
    const { scale, x, y } = this.placement();
    const gx = (px - x) / scale, gy = (py - y) / scale;
    let found = null;
    this.zones.forEach((zone, i) => {
      if (!zone || gx < zone.left || gx > zone.right || gy < zone.top || gy > zone.bottom) return;
      if (found !== null && zone.area >= this.zones[found].area) return;
      if (this.hits.isPointInPath(zone.path, gx, gy, "evenodd")) found = i;
    });
    return found;
  }

  /** The position of a zone's middle on the canvas. */
  placeOf(index) {
    const { scale, x, y } = this.placement(), zone = this.zones[index];
    return [zone.x * scale + x, zone.y * scale + y];
  }

  hover(index, px, py, byKeyboard = false) {
    if (index !== this.hovered) {
      this.hovered = index;
      this.draw();
    }
    this.on.hover(index, px, py, byKeyboard);
  }

  zoomBy(factor, px = this.canvas.clientWidth / 2, py = this.canvas.clientHeight / 2) {
    const before = this.placement();
    const zoom = Math.min(Math.max(this.view.zoom * factor, 1), 60);
    const gx = (px - before.x) / before.scale, gy = (py - before.y) / before.scale;
    this.view.zoom = zoom;
    if (zoom === 1) { this.view.x = this.view.y = 0; }
    const after = this.placement();
    if (zoom > 1) {
      this.view.x += px - (gx * after.scale + after.x);
      this.view.y += py - (gy * after.scale + after.y);
    }
    this.hover(null);
    this.draw();
  }

  down(event) {
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.pressed = [event.offsetX, event.offsetY];
    this.dragging = false;
    if (event.pointerType === "mouse") this.canvas.setPointerCapture(event.pointerId);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId), now = [event.offsetX, event.offsetY];
    if (!before) {
      if (event.pointerType === "mouse") this.hover(this.at(...now), ...now);
      return;
    }
    if (this.pointers.size === 2) this.pinch(event.pointerId, before, now);
    else if (this.dragging || Math.hypot(now[0] - this.pressed[0], now[1] - this.pressed[1]) > 5) {
      this.dragging = true;
      this.canvas.classList.add("dragging");
      this.view.x += now[0] - before[0];
      this.view.y += now[1] - before[1];
      this.hover(null);
      this.draw();
    } else return;
    this.pointers.set(event.pointerId, now);
  }

  pinch(id, before, now) {
    const [, other] = [...this.pointers].find(([key]) => key !== id);
    const spread = (place) => Math.max(Math.hypot(place[0] - other[0], place[1] - other[1]), 1);
    this.dragging = true;
    this.zoomBy(spread(now) / spread(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }

  up(event) {
    const known = this.pointers.delete(event.pointerId);
    this.canvas.classList.remove("dragging");
    if (!known || this.dragging || event.type === "pointercancel") return;
    const index = this.at(event.offsetX, event.offsetY);
    const touch = event.pointerType !== "mouse";
    if (touch) this.hover(index, event.offsetX, event.offsetY);
    if (index !== null) this.on.pick(index, touch);
  }

  key(event) {
    const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    if (event.key in ways) this.step(...ways[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoomBy(1.5);
    else if (event.key === "-") this.zoomBy(1 / 1.5);
    else if (event.key === "0") this.home();
    else if (event.key === "Enter" && this.hovered !== null) this.on.pick(this.hovered, false);
    else if (event.key === "Escape") this.hover(null);
    else return;
    event.preventDefault();
  }

  /** Moves to the nearest zone in a direction. */
  step(dx, dy) {
    const from = this.zones[this.hovered ?? this.origin] ?? this.zones.find(Boolean);
    let best = null, least = Infinity;
    this.zones.forEach((zone, i) => {
      if (!zone || zone === from) return;
      const along = (zone.x - from.x) * dx + (zone.y - from.y) * dy;
      const aside = Math.abs((zone.x - from.x) * dy) + Math.abs((zone.y - from.y) * dx);
      const cost = along + 2 * aside;
      if (along > 0 && aside <= 2 * along && cost < least) [best, least] = [i, cost];
    });
    if (best !== null) this.hover(best, ...this.placeOf(best), true);
  }
}
