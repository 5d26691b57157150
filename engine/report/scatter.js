// The scatter plot: what it draws is in the JSON block `scatter-data`, which scatter.py writes.

(() => {
  const source = document.getElementById("scatter-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const canvas = document.getElementById("scatter");
  const pen = canvas.getContext("2d");
  const detail = document.getElementById("scatter-detail");
  const legend = document.getElementById("scatter-legend");
  const tabs = [...document.querySelectorAll("[data-plot]")];
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const labels = new Int32Array(bytes(data.labels));
  const rows = new Int32Array(bytes(data.rows));
  const near = data.near === null ? null : new Int32Array(bytes(data.near));
  const count = rows.length;

  // Every projection is fitted into a square of side 2 around the origin, proportions kept;
  // `extents` is how far it then reaches across and down.
  const extents = [];
  const plots = data.plots.map((plot) => {
    const xy = new Float32Array(bytes(plot.xy));
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < count; i++) {
      if (!Number.isFinite(xy[2 * i])) continue;
      left = Math.min(left, xy[2 * i]); right = Math.max(right, xy[2 * i]);
      low = Math.min(low, xy[2 * i + 1]); high = Math.max(high, xy[2 * i + 1]);
    }
    const scale = 2 / (Math.max(right - left, high - low) || 1);
    extents.push([Math.max(0.05, (right - left) * scale / 2), Math.max(0.05, (high - low) * scale / 2)]);
    return xy.map((v, i) => (v - (i % 2 ? low + high : left + right) / 2) * (i % 2 ? -scale : scale));
  });

  // Ten colours as far apart as can be under red- and green-blindness too; from the eleventh
  // label on they come again as squares. Beyond twenty labels the name gives the hue.
  const PALETTE = ["#0088cc", "#cc7722", "#00aaaa", "#884466", "#6644ff",
    "#77cc99", "#aa4400", "#44bbff", "#7733aa", "#ff9911"];
  const many = data.names.length > 20;
  const place = new Map(data.names.map(([label], i) => [label, i]));
  const names = new Map(data.names.map(([label, name]) => [label, name]));
  const nameOf = (label) => (label < 0 ? "" : names.get(label) ?? `label ${label}`);
  // FNV-1a, then mixed once more: without that, names that differ at the end get like hues.
  const hash = (text) => {
    let h = 2166136261;
    for (const c of text) h = Math.imul(h ^ c.codePointAt(0), 16777619);
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return (h ^ (h >>> 16)) >>> 0;
  };
  const colourOf = (label) => {
    if (data.names.length === 0) return PALETTE[0];
    if (label < 0) return "#8c8c8c";
    if (!many && place.has(label)) return PALETTE[place.get(label) % 10];
    const h = hash(nameOf(label));
    return `hsl(${h % 360} ${55 + (h >>> 9) % 30}% ${44 + (h >>> 17) % 18}%)`;
  };
  const isSquare = (label) => !many && (place.get(label) ?? 0) >= 10;
  // Points of one label are drawn together: a change of colour costs more than a point.
  const groups = new Map();
  for (let i = 0; i < count; i++) {
    if (!groups.has(labels[i])) groups.set(labels[i], []);
    groups.get(labels[i]).push(i);
  }
  const colours = new Map([...groups.keys()].map((label) => [label, colourOf(label)]));

  const sheets = data.sheets.map((uri) => { const image = new Image(); image.onload = () => redraw(); image.src = uri; return image; });
  const thumbnail = (target, i, x, y, side) => {
    const sheet = sheets[Math.floor(i / data.perSheet)];
    if (!sheet || !sheet.complete) return;
    const cell = i % data.perSheet;
    const column = cell % data.columns, line = Math.floor(cell / data.columns);
    target.drawImage(sheet, column * data.side, line * data.side, data.side, data.side, x, y, side, side);
  };

  let current = 0, last = 0, from = plots[0], blend = 1;
  let width = 1, height = 1;
  const home = { x: 0, y: 0, zoom: 1 };
  const view = { ...home }, goal = { ...home };
  let hovered = -1, pinned = -1, pictures = false, frame = 0, before = 0;
  const hidden = new Set();

  // Pixels a unit without zoom: what shows all of the plot.
  const fit = (plot) => 0.46 * Math.min(width / extents[plot][0], height / extents[plot][1]);
  const base = () => (blend >= 1 ? fit(current) : fit(last) + (fit(current) - fit(last)) * blend);
  const unit = () => base() * view.zoom;
  const blended = (i) => {
    const to = plots[current][i];
    return blend >= 1 || !Number.isFinite(from[i]) ? to : from[i] + (to - from[i]) * blend;
  };
  const screenX = (i) => width / 2 + (blended(2 * i) - view.x) * unit();
  const screenY = (i) => height / 2 + (blended(2 * i + 1) - view.y) * unit();
  const shown = (i) => !hidden.has(labels[i]) && Number.isFinite(plots[current][2 * i]);

  function redraw() { if (!frame) frame = requestAnimationFrame(step); }

  function step(now) {
    frame = 0;
    const passed = before ? Math.min(50, now - before) : 16;
    const pull = calm.matches ? 1 : 1 - Math.exp(-passed / 70);
    let moving = false;
    for (const axis of ["x", "y", "zoom"]) {
      const left = goal[axis] - view[axis];
      if (Math.abs(left) > 1e-4 * (axis === "zoom" ? goal.zoom : 1 / goal.zoom)) { view[axis] += left * pull; moving = true; } else view[axis] = goal[axis];
    }
    if (blend < 1) {
      blend = calm.matches ? 1 : Math.min(1, blend + passed / 650);
      moving = true;
    }
    draw();
    before = moving ? now : 0;
    if (moving) redraw();
  }

  function draw() {
    const density = devicePixelRatio || 1;
    pen.setTransform(density, 0, 0, density, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (pictures && data.pictured) drawPictures(); else drawPoints();
    if (pinned >= 0) drawLinks();
    for (const i of new Set([pinned, hovered])) if (i >= 0 && shown(i)) ring(i, i === pinned);
  }

  function drawPoints() {
    const radius = Math.min(7, (count > 10000 ? 1.3 : count > 3000 ? 2.1 : 3.2) * Math.sqrt(view.zoom) ** 0.9);
    for (const [label, members] of groups) {
      if (hidden.has(label)) continue;
      pen.fillStyle = colours.get(label);
      const square = isSquare(label) || radius < 1.6;
      // Rows without a thumbnail are the plot's ground: paler, and all before those with one.
      for (const known of [false, true]) {
        pen.globalAlpha = known ? 0.85 : 0.35;
        pen.beginPath();
        for (const i of members) {
          if ((i < data.pictured || data.pictured === 0) !== known || !Number.isFinite(plots[current][2 * i])) continue;
          const x = screenX(i), y = screenY(i);
          if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
          if (square) pen.rect(x - radius * 0.9, y - radius * 0.9, radius * 1.8, radius * 1.8);
          else { pen.moveTo(x + radius, y); pen.arc(x, y, radius, 0, 7); }
        }
        pen.fill();
      }
    }
    pen.globalAlpha = 1;
  }

  // As many thumbnails as fit on a grid without covering one another; the others wait for a zoom.
  const laid = new Map();
  const cellSide = () => Math.min(data.side, Math.max(20, Math.sqrt((width * height * view.zoom) / data.pictured))) + 4;
  const cellAt = (x, y) => Math.floor(y / cellSide()) * 1e5 + Math.floor(x / cellSide());

  function drawPictures() {
    const side = cellSide() - 4;
    laid.clear();
    for (let i = 0; i < data.pictured; i++) {
      if (!shown(i)) continue;
      const x = screenX(i), y = screenY(i);
      if (x < -side || y < -side || x > width + side || y > height + side) continue;
      if (laid.has(cellAt(x, y))) continue;
      laid.set(cellAt(x, y), i);
      const left = Math.floor(x / (side + 4)) * (side + 4) + 2, top = Math.floor(y / (side + 4)) * (side + 4) + 2;
      thumbnail(pen, i, left, top, side);
      if (data.names.length) { pen.fillStyle = colours.get(labels[i]); pen.fillRect(left, top + side - 3, side, 3); }
    }
  }

  function drawLinks() {
    pen.strokeStyle = getComputedStyle(canvas).color;
    pen.lineWidth = 1;
    pen.globalAlpha = 0.55;
    pen.beginPath();
    for (const i of nearOf(pinned)) {
      if (!shown(i)) continue;
      pen.moveTo(screenX(pinned), screenY(pinned));
      pen.lineTo(screenX(i), screenY(i));
    }
    pen.stroke();
    pen.globalAlpha = 1;
    for (const i of nearOf(pinned)) if (shown(i)) ring(i, false, 4.5);
  }

  function ring(i, strong, radius = 8) {
    pen.beginPath();
    pen.arc(screenX(i), screenY(i), radius, 0, 7);
    pen.lineWidth = strong ? 3 : 2;
    pen.strokeStyle = getComputedStyle(canvas).color;
    pen.stroke();
  }

  const nearOf = (i) => (near === null || i < 0 ? [] :
    [...near.subarray(i * data.nearest, (i + 1) * data.nearest)].filter((j) => j >= 0));

  function at(x, y) {
    if (pictures) return laid.get(cellAt(x, y)) ?? -1;
    let best = -1, least = 16 ** 2;
    for (let i = 0; i < data.pictured; i++) {
      if (!shown(i)) continue;
      const distance = (screenX(i) - x) ** 2 + (screenY(i) - y) ** 2;
      if (distance < least) { least = distance; best = i; }
    }
    return best;
  }

  // All text is set as text, never as HTML: keys are file names.
  function make(tag, text, name) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    return node;
  }

  function picture(i) {
    const small = document.createElement("canvas");
    small.width = small.height = data.side;
    small.setAttribute("role", "img");
    small.setAttribute("aria-label", data.keys[i]);
    thumbnail(small.getContext("2d"), i, 0, 0, data.side);
    return small;
  }

  function describe() {
    const i = hovered >= 0 ? hovered : pinned;
    detail.replaceChildren();
    if (i < 0) {
      detail.append(make("p", data.pictured ? "Point at an image to see it; click to pin it and its nearest neighbours. Drag to move, scroll to zoom." : "Drag to move, scroll to zoom.", "note"));
      return;
    }
    if (sheets.length) detail.append(picture(i));
    detail.append(make("p", data.keys[i], "key"));
    detail.append(make("p", [nameOf(labels[i]), `row ${rows[i].toLocaleString("en")}`].filter(Boolean).join(" · "), "quiet"));
    if (near === null || i !== pinned) return;
    const found = nearOf(i);
    const all = found.length === data.nearest;
    detail.append(make("p", all ? `Its ${data.nearest} nearest in ${data.graph}:` : `Of its ${data.nearest} nearest in ${data.graph}, ${found.length} are in this sample${found.length ? ":" : "."}`, "note"));
    const grid = make("div", undefined, "near");
    for (const j of found) {
      const button = make("button", sheets.length ? undefined : "●", labels[j] >= 0 && labels[j] === labels[i] ? "alike" : undefined);
      button.type = "button";
      button.title = [data.keys[j], nameOf(labels[j])].filter(Boolean).join(" · ");
      button.setAttribute("aria-label", button.title);
      if (sheets.length) button.append(picture(j));
      button.addEventListener("click", () => pin(j));
      grid.append(button);
    }
    detail.append(grid);
  }

  function hover(i) {
    if (i === hovered) return;
    hovered = i;
    canvas.classList.toggle("over", i >= 0);
    describe();
    redraw();
  }

  function pin(i) {
    pinned = i === pinned ? -1 : i;
    hovered = -1;
    describe();
    redraw();
  }

  function zoomAt(x, y, factor) {
    const zoom = Math.min(200, Math.max(0.5, goal.zoom * factor));
    const scale = base();
    // The spot under the pointer stays where it is.
    goal.x += (x - width / 2) / scale * (1 / goal.zoom - 1 / zoom);
    goal.y += (y - height / 2) / scale * (1 / goal.zoom - 1 / zoom);
    goal.zoom = zoom;
    redraw();
  }

  function move(dx, dy) {
    const scale = base() * goal.zoom;
    goal.x -= dx / scale;
    goal.y -= dy / scale;
    redraw();
  }

  const reset = () => { Object.assign(goal, home); redraw(); };

  function choose(next, focus) {
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === next));
      tab.tabIndex = i === next ? 0 : -1;
    });
    if (focus) tabs[next].focus();
    document.querySelectorAll("[data-note]").forEach((note) => { note.hidden = Number(note.dataset.note) !== next; });
    if (next !== current) { last = current; from = plots[last]; current = next; blend = 0; }
    redraw();
  }

  const pointers = new Map();
  let travelled = 0;
  const spot = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, spot(event));
    travelled = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = spot(event);
    const old = pointers.get(event.pointerId);
    if (!old) { hover(at(x, y)); return; }
    pointers.set(event.pointerId, [x, y]);
    travelled += Math.abs(x - old[0]) + Math.abs(y - old[1]);
    if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
      const was = Math.hypot(old[0] - other[0], old[1] - other[1]), is = Math.hypot(x - other[0], y - other[1]);
      zoomAt((x + other[0]) / 2, (y + other[1]) / 2, is / (was || 1));
    } else if (travelled > 3) {
      canvas.classList.add("dragging");
      move(x - old[0], y - old[1]);
      Object.assign(view, { x: goal.x, y: goal.y });
    }
  });
  const release = (event) => {
    if (pointers.delete(event.pointerId) && travelled <= 3 && event.type === "pointerup") pin(at(...spot(event)));
    canvas.classList.remove("dragging");
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => hover(-1));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomAt(...spot(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const does = {
      ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0), ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40),
      "+": () => zoomAt(width / 2, height / 2, 1.3), "-": () => zoomAt(width / 2, height / 2, 1 / 1.3), 0: reset, Escape: () => pin(-1),
    }[event.key];
    if (does) { event.preventDefault(); does(); }
  });

  const actions = {
    in: () => zoomAt(width / 2, height / 2, 1.5), out: () => zoomAt(width / 2, height / 2, 1 / 1.5), reset,
    all: () => { hidden.clear(); press(); }, none: () => { groups.forEach((_, label) => hidden.add(label)); press(); },
  };
  document.querySelectorAll("[data-do]").forEach((button) => button.addEventListener("click", actions[button.dataset.do]));
  document.getElementById("scatter-pictures")?.addEventListener("change", (event) => { pictures = event.target.checked; redraw(); });
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => choose(i));
    tab.addEventListener("keydown", (event) => {
      const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (way) choose((i + way + tabs.length) % tabs.length, true);
    });
  });

  function press() {
    legend?.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.label)))));
    hover(-1);
    redraw();
  }

  function mark(label) {
    const small = make("canvas", undefined, "mark");
    small.width = small.height = 24;
    const ink = small.getContext("2d");
    ink.fillStyle = colourOf(label);
    if (isSquare(label)) ink.fillRect(3, 3, 18, 18);
    else { ink.arc(12, 12, 11, 0, 7); ink.fill(); }
    return small;
  }

  if (legend) {
    const listed = groups.has(-1) ? [...data.names, [-1, "no label", groups.get(-1).length]] : data.names;
    for (const [label, name, size] of listed) {
      const button = make("button");
      button.type = "button";
      button.dataset.label = label;
      button.title = `${name}: click to hide or show, double-click to show it alone`;
      button.setAttribute("aria-pressed", "true");
      button.append(mark(label), make("span", name, "name"), make("span", size.toLocaleString("en"), "rows"));
      button.addEventListener("click", () => { if (!hidden.delete(label)) hidden.add(label); press(); });
      button.addEventListener("dblclick", () => { groups.forEach((_, other) => hidden.add(other)); hidden.delete(label); press(); });
      legend.append(button);
    }
  }

  // report.html#umap opens that tab.
  function follow() {
    const method = location.hash.slice(1);
    const found = data.plots.findIndex((plot) => plot.method === method);
    if (found >= 0) { choose(found); blend = 1; document.getElementById("projection").scrollIntoView(); }
  }
  addEventListener("hashchange", follow);

  new ResizeObserver(() => {
    const box = canvas.getBoundingClientRect(), density = devicePixelRatio || 1;
    width = box.width; height = box.height;
    canvas.width = Math.round(width * density); canvas.height = Math.round(height * density);
    draw();
  }).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  describe();
  follow();
})();
