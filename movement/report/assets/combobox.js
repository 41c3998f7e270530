// A select with a search: the WAI-ARIA pattern "editable combobox with list autocomplete".

class Combobox {
  /** Calls `onPick(value)` with the chosen value. `setOptions` takes [{value, title, detail, text}]. */
  constructor(parent, id, onPick) {
    this.onPick = onPick;
    this.options = [];
    this.found = [];
    this.active = -1;
    this.value = null;
    this.input = make("input", {
      id, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", "aria-expanded": "false",
      "aria-autocomplete": "list", "aria-controls": `${id}-list`, placeholder: "Search zones",
      onfocus: () => { this.input.select(); this.open(""); },
      onclick: () => {
        if (!this.list.hidden) return;
        this.open("");
        setTimeout(() => this.input.select()); // the browser sets its caret after the click
      },
      oninput: () => this.open(this.input.value),
      onblur: () => this.close(),
      onkeydown: (event) => this.key(event),
    });
    // Not on click: the input would lose the focus first, and the list would close.
    this.list = make("ul", { id: `${id}-list`, role: "listbox", "aria-label": "Zones", hidden: true,
      onpointerdown: (event) => { if (event.pointerType === "mouse") event.preventDefault(); },
      onclick: (event) => {
        const item = event.target.closest("[role=option]");
        if (item) this.pick(Number(item.dataset.value));
      } });
    parent.append(this.input, this.list);
  }

  setOptions(options, value) {
    this.options = options;
    this.setValue(value);
  }

  setValue(value) {
    this.value = value;
    const chosen = this.options.find((option) => option.value === value);
    if (document.activeElement !== this.input || this.list.hidden) this.input.value = chosen ? chosen.text : "";
  }

  open(query) {
    const words = fold(query).split(/\s+/).filter(Boolean);
    const found = this.options.filter((option) => {
      option.folded ??= fold(`${option.text} ${option.id}`);
      return words.every((word) => option.folded.includes(word));
    });
    this.found = found.slice(0, Combobox.SHOWN);
    this.active = this.found.findIndex((option) => option.value === this.value);
    if (this.active < 0 && words.length && this.found.length) this.active = 0;
    const items = this.found.map((option, i) => make("li", {
      id: `${this.list.id}-${i}`, role: "option", "data-value": option.value,
      "aria-selected": String(option.value === this.value),
    }, make("b", {}, option.title), option.detail ? make("small", {}, option.detail) : null));
    const more = found.length - this.found.length;
    if (more > 0) items.push(make("li", { class: "more", role: "presentation" }, `${number(more)} more: type to narrow`));
    if (!found.length) items.push(make("li", { class: "more", role: "presentation" }, "No zone with this name"));
    show(this.list, ...items);
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.mark();
  }

  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
    this.setValue(this.value);
  }

  mark() {
    this.list.querySelectorAll("[role=option]").forEach((item, i) => item.classList.toggle("active", i === this.active));
    const item = this.list.children[this.active];
    if (this.active < 0 || !item) { this.input.removeAttribute("aria-activedescendant"); return; }
    this.input.setAttribute("aria-activedescendant", item.id);
    item.scrollIntoView({ block: "nearest" });
  }

  key(event) {
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    if (event.key in moves) {
      event.preventDefault();
      if (this.list.hidden) this.open("");
      this.active = Math.min(Math.max(this.active + moves[event.key], 0), this.found.length - 1);
      this.mark();
    } else if (event.key === "Enter" && !this.list.hidden && this.found[this.active]) {
      event.preventDefault();
      this.pick(this.found[this.active].value);
    } else if (event.key === "Escape") {
      this.close();
    }
  }

  pick(value) {
    this.value = value;
    this.close();
    this.input.select();
    this.onPick(value);
  }
}
Combobox.SHOWN = 80;

/** Text for the search: lower case without accents. */
const fold = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
