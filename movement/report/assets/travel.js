// The travel times: the selection (city, origin, date range), and all parts of the page that depend on it.

class Travel {
  constructor(source) {
    this.source = source;
    this.turn = 0;
    this.ready = new Map();
    this.cityBox = byId("city");
    this.rangeBox = byId("range");
    this.cityBox.addEventListener("change", () => this.pickCity(Number(this.cityBox.value)));
    this.rangeBox.addEventListener("change", () => this.pickSlice(Number(this.rangeBox.value)));
    this.originBox = new Combobox(byId("origin-box"), "origin", (zone) => this.pickOrigin(zone));
    this.map = new ZoneMap(byId("map"), {
      hover: (zone, x, y, byKeyboard) => this.hover(zone, x, y, byKeyboard),
      pick: (zone, touch) => { if (!touch) this.pickOrigin(zone, true); },
    });
    this.table = new DestinationTable(byId("view-table"), (zone) => this.pickOrigin(zone));
    this.tabs = [["map", byId("tab-map"), byId("view-map")], ["table", byId("tab-table"), byId("view-table")]];
    for (const [name, tab] of this.tabs) {
      tab.addEventListener("click", () => this.showView(name));
      tab.addEventListener("keydown", (event) => this.tabKey(event));
    }
    byId("zoom-in").addEventListener("click", () => this.map.zoomBy(1.6));
    byId("zoom-out").addEventListener("click", () => this.map.zoomBy(1 / 1.6));
    byId("zoom-all").addEventListener("click", () => this.map.home());
    byId("map").addEventListener("painted", (event) => this.scaleBar(event.detail.metresPerPixel));
  }

  /** Takes new data; keeps the selection if it still exists. */
  async setGold(gold) {
    const before = this.city ? { city: this.city.name, range: this.slice?.range, id: this.zones?.ids[this.origin] } : null;
    this.gold = gold;
    this.ready.clear();
    const empty = !gold || !gold.cities.length;
    byId("travel-empty").hidden = !empty;
    byId("travel-body").hidden = empty;
    if (empty) {
      byId("travel-sub").textContent = "";
      show(byId("travel-empty"), make("h3", {}, "No gold tables yet"),
        make("p", {}, gold ? "The gold tables have no travel times." : "The travel times come from the lake’s gold tables, which do not exist yet."),
        make("p", {}, "Build them: ", make("code", {}, "movement gold")),
        make("p", {}, this.source.live ? "This page shows them as soon as they exist."
          : make("span", {}, "Then make this page again: ", make("code", {}, "movement report"))));
      return;
    }
    byId("travel-sub").textContent = `${number(gold.rows)} corridors in ${gold.cities.length} ` +
      `${gold.cities.length === 1 ? "city" : "cities"}, the latest row of each origin, destination and date range`;
    show(this.cityBox, ...gold.cities.map((city, i) => make("option", { value: i }, city.name || "(no name)")));
    // Starts with the city with the most corridors among those with a map.
    const weight = (city) => (city.map ? 1e12 : 0) + city.slices.reduce((sum, slice) => sum + slice.rows, 0);
    let at = gold.cities.findIndex((city) => city.name === before?.city);
    if (at < 0) at = gold.cities.reduce((best, city, i) => weight(city) > weight(gold.cities[best]) ? i : best, 0);
    await this.pickCity(at, before);
  }

  async pickCity(index, before = null) {
    const turn = ++this.turn;
    const city = this.gold.cities[index];
    const zones = await this.once(city.zones_blob, async (bytes) => {
      const [ids, names] = JSON.parse(new TextDecoder().decode(bytes));
      return { ids, names };
    });
    const outlines = city.map && await this.once(city.map.blob, async (bytes) => decodeOutlines(bytes, city.map.columns, city.zones));
    if (turn !== this.turn) return;
    Object.assign(this, { city, zones, slice: null, origin: null });
    this.cityBox.value = String(index);
    show(this.rangeBox, ...rangeOptions(city.slices));
    if (outlines) this.map.setCity(city.map, outlines);
    byId("tab-map").hidden = !outlines;
    // The chosen view is kept while a city without a map is shown.
    this.showView(outlines ? this.wantedView ?? "map" : "table", false);
    const at = Math.max(city.slices.findIndex((slice) => slice.range === before?.range), 0);
    await this.pickSlice(at, before?.id);
  }

  async pickSlice(index, originId = this.zones.ids[this.origin]) {
    const turn = ++this.turn;
    const { city, zones } = this, slice = city.slices[index];
    byId("view-map").setAttribute("aria-busy", "true");
    const data = await this.once(slice.blob, async (bytes) => decodeSlice(bytes, slice.columns, city.zones));
    if (turn !== this.turn) return;
    byId("view-map").removeAttribute("aria-busy");
    this.slice = slice;
    this.data = data;
    this.rangeBox.value = String(index);
    byId("range-detail").textContent = slice.start ? `${period(slice)}, ${filters(slice)}` : "";
    data.scale ??= makeScale(data.mean);
    data.options ??= [...data.runs.keys()].map((zone) => {
      const [title, detail] = nameParts(zones, zone);
      return { value: zone, id: zones.ids[zone], title, detail, text: fullName(zones, zone) };
    }).sort((a, b) => ORDER.compare(a.text, b.text));
    const same = originId === undefined ? -1 : zones.ids.indexOf(originId);
    this.pickOrigin(data.runs.has(same) ? same : busiest(data.runs));
  }

  pickOrigin(zone, byMap = false) {
    if (!this.data.runs.has(zone)) {
      this.note(`No travel times from ${fullName(this.zones, zone)} in this date range. It has ${number(this.data.runs.size)} ` +
        `${this.data.runs.size === 1 ? "zone" : "zones"} to start from: see “From”.`);
      return;
    }
    this.origin = zone;
    this.originBox.setOptions(this.data.options, zone);
    const { destination, mean, lower, upper } = this.data, [first, end] = this.data.runs.get(zone);
    this.rowOf = new Map();
    this.rows = [];
    for (let i = first; i < end; i++) {
      const row = { zone: destination[i], mean: mean[i], lower: lower[i], upper: upper[i] };
      this.rowOf.set(row.zone, row);
      this.rows.push(row);
    }
    this.paint();
    if (!byMap) this.hideCard();
    else if (this.map.hovered !== null) this.hover(this.map.hovered, ...this.map.placeOf(this.map.hovered), false);
  }

  paint() {
    const { scale } = this.data;
    if (this.city.map) {
      const fills = new Array(this.city.zones).fill(null);
      for (const row of this.rows) fills[row.zone] = scale.colours[scale.of(row.mean)];
      this.map.setFills(fills, this.origin);
      const [title] = nameParts(this.zones, this.origin);
      byId("map").setAttribute("aria-label", `Map of ${this.city.name}: mean travel times from ${title}`);
    }
    this.table.setRows(this.rows, this.zones, scale, (zone) => this.data.runs.has(zone));
    show(byId("legend"), legendChart(scale, this.rows.map((row) => row.mean),
      (k) => this.map.emphasise(k === null ? null : scale.colours[k])));
    this.facts();
    this.note(null);
  }

  facts() {
    const means = this.rows.map((row) => row.mean).sort((a, b) => a - b);
    const within = (minutes) => means.filter((mean) => mean <= minutes * 60).length;
    const near = this.rows.filter((row) => row.zone !== this.origin).sort((a, b) => a.mean - b.mean).slice(0, 4);
    const fact = (value, name) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
    const reach = [15, 30, 60].find((minutes) => within(minutes) >= means.length * 0.1) ?? 60;
    show(byId("facts"), make("dl", {},
      fact(number(means.length), means.length === 1 ? "destination" : "destinations"),
      fact(spoken(means[Math.floor(means.length / 2)] ?? null), "median"),
      fact(number(within(reach)), `within ${reach} min`)),
    near.length ? make("h3", {}, "Nearest") : null,
    near.length ? make("ol", { "aria-label": "Nearest destinations" }, ...near.map((row) => make("li", {}, make("span", {}, nameParts(this.zones, row.zone)[0]), spoken(row.mean)))) : null,
    this.citySummary());
  }

  citySummary() {
    const summary = this.slice.summary;
    if (!summary || summary.median === null) return null;
    const parts = [`median ${spoken(summary.median)}`];
    if (summary.p90 !== null) parts.push(`nine in ten below ${spoken(summary.p90)}`);
    if (summary.reliability !== null) parts.push(`range ${Math.round(summary.reliability * 100)} % of the mean`);
    return make("p", { title: "All corridors of the city in this date range; range: (upper − lower) / mean" },
      `Whole city: ${parts.join(", ")}`);
  }

  note(text) {
    const { map, zones } = this.city;
    const parts = [];
    const without = map ? map.drawn - this.rows.filter((row) => this.map.zones[row.zone]).length : 0;
    if (text) parts.push(text);
    else {
      if (without > 1 && !byId("view-map").hidden) parts.push(`${number(without)} zones without a travel time from here are grey.`);
      if (!map) parts.push("The data has no outlines for this city, so there is no map.");
      else if (map.drawn < zones) parts.push(`${number(zones - map.drawn)} of ${number(zones)} zones have no outline: see the table.`);
      if (this.slice?.rows < this.slice?.total) {
        parts.push(`Cut to ${number(this.slice.rows)} of ${number(this.slice.total)} corridors (--set report.max_rows).`);
      }
    }
    byId("stage-note").textContent = parts.join(" ");
  }

  hover(zone, x, y, byKeyboard) {
    if (zone === null || zone === undefined) { this.hideCard(); return; }
    const row = this.rowOf.get(zone), card = byId("card"), [title, detail] = nameParts(this.zones, zone);
    const parts = [make("strong", { class: "card-name" }, title), detail ? make("span", { class: "card-detail" }, detail) : null];
    if (row) {
      const swatch = make("i", { class: "swatch", "aria-hidden": "true" });
      swatch.style.setProperty("background-color", this.data.scale.colours[this.data.scale.of(row.mean)]);
      parts.push(make("span", { class: "card-mean" }, swatch, spoken(row.mean)), rangeBar(row, this.data.scale));
      parts.push(make("span", { class: "card-bounds" }, `${clock(row.lower)} to ${clock(row.upper)}, mean ${clock(row.mean)}`));
    } else {
      parts.push(make("span", { class: "card-bounds" }, zone === this.origin ? "Start" : "No travel time from the start"));
    }
    if (zone !== this.origin && this.data.runs.has(zone)) {
      parts.push(make("button", { type: "button", class: "card-start", onclick: () => { this.pickOrigin(zone); } }, "Start from here"));
    }
    show(card, ...parts);
    card.hidden = false;
    const { clientWidth: width, clientHeight: height } = byId("map");
    let left = x + 18 + card.offsetWidth > width ? x - card.offsetWidth - 18 : x + 18, top = y - card.offsetHeight / 2;
    // On a phone there is no room beside the zone, so the card is above or below it.
    if (width < 560) [left, top] = [8, y > height / 2 ? 8 : height - card.offsetHeight - 8];
    card.style.setProperty("left", `${Math.min(Math.max(left, 8), Math.max(width - card.offsetWidth - 8, 8))}px`);
    card.style.setProperty("top", `${Math.min(Math.max(top, 8), Math.max(height - card.offsetHeight - 8, 8))}px`);
    if (byKeyboard) {
      byId("spoken").textContent = row ? `${fullName(this.zones, zone)}: ${spoken(row.mean)}, between ${spoken(row.lower)} and ${spoken(row.upper)}`
        : `${fullName(this.zones, zone)}: no travel time`;
    }
  }

  hideCard() { byId("card").hidden = true; }

  showView(name, wanted = true) {
    if (wanted) this.wantedView = name;
    for (const [each, tab, view] of this.tabs) {
      const mine = each === name;
      tab.setAttribute("aria-selected", String(mine));
      tab.tabIndex = mine ? 0 : -1;
      view.hidden = !mine;
    }
    this.map.resize();
    if (this.rows && this.slice) this.note(null);
  }

  tabKey(event) {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const next = this.tabs.find(([, tab]) => tab !== event.target && !tab.hidden);
    if (next) { this.showView(next[0]); next[1].focus(); }
  }

  scaleBar(metresPerPixel) {
    const most = metresPerPixel * 120, power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map((each) => each * power).find((each) => each <= most);
    const [line, text] = byId("scalebar").children;
    line.style.setProperty("inline-size", `${length / metresPerPixel}px`);
    text.textContent = length < 1000 ? `${length} m` : `${length / 1000} km`;
  }

  /** A decoded blob; each is inflated and decoded once. */
  once(name, decode) {
    if (!this.ready.has(name)) {
      const wanted = this.source.blob(name).then(inflate).then(decode);
      wanted.catch(() => this.ready.delete(name)); // after an error, requested again when needed
      this.ready.set(name, wanted);
    }
    return this.ready.get(name);
  }
}

/** The bounds around the mean, on the whole scale. */
function rangeBar({ mean, lower, upper }, scale) {
  const whole = Math.max(scale.step * scale.count * 60, upper === NONE ? mean : upper);
  const [from, to] = [lower === NONE ? mean : lower, upper === NONE ? mean : upper];
  return svg("svg", { class: "range", viewBox: "0 0 200 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { x: 0, y: 5, width: 200, height: 2, class: "range-all" }),
    svg("rect", { x: from / whole * 200, y: 3, width: Math.max((to - from) / whole * 200, 1), height: 6, rx: 3, class: "range-span" }),
    svg("rect", { x: mean / whole * 200 - 1.5, y: 0, width: 3, height: 12, class: "range-mean" }));
}

/** Date ranges, grouped by period if there are several. */
function rangeOptions(slices) {
  const periods = new Map();
  slices.forEach((slice, i) => {
    const group = periods.get(period(slice)) ?? [];
    group.push([i, slice]);
    periods.set(period(slice), group);
  });
  const option = ([i, slice], text) => make("option", { value: i }, text);
  if (slices.length === periods.size) {
    return slices.map((slice, i) => option([i, slice], period(slice)));
  }
  return [...periods].map(([name, group]) => make("optgroup", { label: name },
    ...group.map((entry) => option(entry, filters(entry[1])))));
}

/** The origin with the most destinations. */
function busiest(runs) {
  let best = null, most = -1;
  for (const [zone, [first, end]] of runs) if (end - first > most) [best, most] = [zone, end - first];
  return best;
}
