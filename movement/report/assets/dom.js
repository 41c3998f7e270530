// Creates elements. Text is always set as text, so data never becomes markup.

const byId = (id) => document.getElementById(id);

/** make("p", {class: "sub", onclick: f}, "text", child …): attributes, handlers and children. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Nodes of a text with commands in backticks. */
const withCode = (text) => text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));

/** Replaces the children of an element. */
function show(parent, ...children) {
  parent.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

/** A zone's name in two parts, the place and the quarter: "Harborwalk" and "Waterfront, Boston". */
function nameParts(zones, index) {
  const name = zones.names[index];
  if (!name) return [`Zone ${zones.ids[index]}`, ""];
  const comma = name.indexOf(", ");
  return comma < 0 ? [name, ""] : [name.slice(0, comma), name.slice(comma + 2)];
}
const fullName = (zones, index) => zones.names[index] || `Zone ${zones.ids[index]}`;

/** The current colour of a custom property, in a form that a canvas accepts. */
function colour(name) {
  const probe = byId("footer");
  probe.style.setProperty("outline-color", `var(${name})`);
  return getComputedStyle(probe).outlineColor;
}
