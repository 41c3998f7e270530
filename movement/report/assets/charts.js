// SVG charts: a series over batches, shares as bars, a histogram.

const CHART_BARS = 72;

/**
 * A figure with a heading, the value under the pointer (at rest the last one) and bars over time.
 * `values` may hold null: then nothing is drawn there. `when`: seconds since 1970 of each.
 */
function seriesChart({ title, hint, values, when, format, tone = "accent" }) {
  // With more batches than bars, a bar is the highest of several batches, because peaks matter most.
  const size = Math.ceil(values.length / CHART_BARS);
  const bars = [];
  for (let at = 0; at < values.length; at += size) {
    const group = values.slice(at, at + size);
    const known = group.filter((value) => value !== null);
    bars.push({ value: known.length ? Math.max(...known) : null, from: when[at], to: when[Math.min(at + size, when.length) - 1] });
  }
  const known = values.filter((value) => value !== null);
  const top = Math.max(...known, 0) || 1;
  const width = 320, height = 84;
  const slot = Math.min(width / Math.max(bars.length, 1), 26);
  const readout = make("output", { class: "chart-value" });
  const caption = make("span", { class: "chart-hint" });
  const rest = () => {
    readout.textContent = format(known[known.length - 1]);
    caption.textContent = hint;
  };
  const shapes = bars.map((bar, i) => bar.value === null ? null : svg("rect", {
    x: (i * slot).toFixed(2), width: Math.max(slot - (slot > 4 ? 2 : 0.4), 0.6).toFixed(2), rx: slot > 6 ? 1.5 : 0,
    y: (height - Math.max(bar.value / top * (height - 6), 1)).toFixed(2),
    height: Math.max(bar.value / top * (height - 6), 1).toFixed(2),
  }));
  const plot = svg("svg", {
    class: `chart tone-${tone}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${title}: last ${format(known[known.length - 1])}, highest ${format(Math.max(...known))}, ` +
      `lowest ${format(Math.min(...known))}, ${number(known.length)} batches`,
    onpointermove: (event) => {
      const box = plot.getBoundingClientRect();
      const i = Math.floor((event.clientX - box.left) / box.width * width / slot);
      shapes.forEach((shape, k) => shape?.classList.toggle("on", k === i));
      if (!bars[i] || bars[i].value === null) { rest(); return; }
      readout.textContent = format(bars[i].value);
      caption.textContent = bars[i].from === bars[i].to ? instant(bars[i].to)
        : `highest, ${TIME.format(bars[i].from * 1000)} to ${TIME.format(bars[i].to * 1000)}`;
    },
    onpointerleave: () => { shapes.forEach((shape) => shape?.classList.remove("on")); rest(); },
  }, svg("line", { x1: 0, x2: width, y1: height, y2: height, class: "axis" }), ...shapes);
  rest();
  return make("figure", { class: "panel figure" },
    make("figcaption", {}, title), make("div", { class: "chart-head" }, readout, caption), plot,
    make("div", { class: "chart-foot", "aria-hidden": "true" },
      make("span", {}, when.length > 1 ? TIME.format(when[0] * 1000) : ""), make("span", {}, `highest ${format(Math.max(...known))}`),
      make("span", {}, TIME.format(when[when.length - 1] * 1000))));
}

/** Named shares as horizontal bars: rows of [name, value, text]. */
function barList(rows, tone = "accent") {
  const top = Math.max(...rows.map((row) => row[1]), 1);
  return make("ul", { class: `bars tone-${tone}` }, ...rows.map(([name, value, text]) => {
    const bar = make("i", { "aria-hidden": "true", class: value ? null : "nothing" });
    bar.style.setProperty("inline-size", `${value / top * 100}%`);
    return make("li", {}, make("span", { class: "bars-name" }, name), make("span", { class: "bars-value" }, text), bar);
  }));
}

/** The legend: the number of destinations in each time class, in the map's colours, above an axis of minutes. */
function legendChart(scale, seconds, onClass) {
  const parts = 4, bins = new Array(scale.count * parts).fill(0);
  for (const value of seconds) {
    bins[Math.min(bins.length - 1, Math.floor(value / 60 / scale.step * parts))]++;
  }
  const top = Math.max(...bins, 1), width = 300, height = 64, slot = width / bins.length;
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height + 30}`, role: "img",
    "aria-label": `Classes of ${scale.step} minutes, from bright (near) to dark (far)` });
  bins.forEach((count, i) => {
    const tall = count ? Math.max(count / top * height, 1.5) : 0;
    plot.append(svg("rect", { x: i * slot + 0.5, y: height - tall, width: slot - 1, height: tall,
      fill: scale.colours[Math.floor(i / parts)], class: "legend-bar" }));
  });
  for (let k = 0; k < scale.count; k++) {
    const x = k * width / scale.count;
    plot.append(svg("rect", { x, y: height + 3, width: width / scale.count, height: 10, fill: scale.colours[k],
      class: "legend-class", onpointerenter: () => onClass(k), onpointerleave: () => onClass(null) }));
    plot.append(svg("text", { x: k ? x : 0, y: height + 27, "text-anchor": k ? "middle" : "start" },
      k === scale.count - 1 ? `${k * scale.step}+` : String(k * scale.step)));
  }
  return plot;
}
