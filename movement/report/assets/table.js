// The table of destinations: sorted by any column, filtered by name, drawn in parts.

const TABLE_PART = 250;

class DestinationTable {
  /** Calls `onPick(zone)` when the user chooses a row's zone as the origin. */
  constructor(parent, onPick) {
    this.onPick = onPick;
    this.sorted = { key: "mean", down: false };
    this.query = "";
    this.shown = TABLE_PART;
    this.filter = make("input", { type: "search", id: "filter", placeholder: "Filter destinations", autocomplete: "off",
      "aria-label": "Filter destinations by name",
      oninput: () => { this.query = fold(this.filter.value.trim()); this.shown = TABLE_PART; this.draw(); } });
    this.count = make("p", { class: "table-count", role: "status" });
    this.body = make("tbody");
    this.heads = [["name", "Destination"], ["mean", "Mean"], ["lower", "Lower bound"], ["upper", "Upper bound"]]
      .map(([key, title]) => make("th", { scope: "col", class: `column-${key}`, "data-key": key },
        make("button", { type: "button", onclick: () => this.sort(key) }, title, make("i", { "aria-hidden": "true" }))));
    this.more = make("button", { type: "button", class: "quiet", hidden: true,
      onclick: () => { this.shown += 4 * TABLE_PART; this.draw(); } });
    show(parent, make("div", { class: "table-bar" }, this.filter, this.count),
      make("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Destinations" },
        make("table", {}, make("caption", { class: "hidden" }, "Travel times in minutes and seconds"),
          make("thead", {}, make("tr", {}, ...this.heads)), this.body), this.more));
  }

  /** Rows: [{zone, mean, lower, upper}]; `starts(zone)`: whether the zone has destinations. */
  setRows(rows, zones, scale, starts) {
    Object.assign(this, { rows, zones, scale, starts, shown: TABLE_PART });
    for (const row of rows) row.text = fold(fullName(zones, row.zone));
    this.draw();
  }

  sort(key) {
    this.sorted = { key, down: this.sorted.key === key && !this.sorted.down };
    this.draw();
  }

  draw() {
    const { key, down } = this.sorted;
    const sign = down ? -1 : 1;
    const words = this.query.split(/\s+/).filter(Boolean);
    const found = this.rows.filter((row) => words.every((word) => row.text.includes(word)));
    found.sort((a, b) => sign * (key === "name" ? ORDER.compare(a.text, b.text) : a[key] - b[key]) || a.zone - b.zone);
    for (const head of this.heads) {
      const mine = head.dataset.key === key;
      head.setAttribute("aria-sort", mine ? (down ? "descending" : "ascending") : "none");
    }
    const top = this.rows.reduce((most, row) => Math.max(most, row.upper, row.mean), 1);
    show(this.body, ...found.slice(0, this.shown).map((row) => this.row(row, top)));
    if (!found.length) {
      show(this.body, make("tr", {}, make("td", { colspan: "4", class: "none" },
        this.rows.length ? "No destination has this in its name." : "No travel times from here in this date range.")));
    }
    this.count.textContent = found.length === this.rows.length ? `${number(found.length)} destinations`
      : `${number(found.length)} of ${number(this.rows.length)} destinations`;
    this.more.hidden = found.length <= this.shown;
    this.more.textContent = `Show more (${number(found.length - this.shown)} left)`;
  }

  row({ zone, mean, lower, upper }, top) {
    const [title, detail] = nameParts(this.zones, zone);
    const name = this.starts(zone)
      ? make("button", { type: "button", class: "link", title: "Start from here", onclick: () => this.onPick(zone) }, title)
      : make("span", {}, title);
    const span = make("i", { class: "span", "aria-hidden": "true" }), dot = make("i", { class: "dot", "aria-hidden": "true" });
    const share = (value) => `${Math.max(value, 0) / top * 100}%`;
    span.style.setProperty("inset-inline-start", share(lower === NONE ? mean : lower));
    span.style.setProperty("inline-size", share((upper === NONE ? mean : upper) - (lower === NONE ? mean : lower)));
    dot.style.setProperty("inset-inline-start", share(mean));
    dot.style.setProperty("background-color", this.scale.colours[this.scale.of(mean)]);
    return make("tr", {},
      make("th", { scope: "row" }, name, detail ? make("small", {}, detail) : null,
        make("div", { class: "range-bar", "aria-hidden": "true" }, span, dot)),
      make("td", { class: "mean" }, clock(mean)), make("td", {}, clock(lower)), make("td", {}, clock(upper)));
  }
}
const ORDER = new Intl.Collator("en", { numeric: true });
