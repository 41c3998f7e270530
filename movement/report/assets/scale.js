// Maps seconds to classes of minutes and to colours; formats figures.

// Viridis (van der Walt and Smith): even steps of lightness, readable with every colour blindness.
const VIRIDIS = [
  [68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140], [34, 168, 132],
  [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37],
];
const STEPS = [1, 2, 5, 10, 15, 20, 30, 60, 120, 240];
const CLASSES = 10;

function viridis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(at), VIRIDIS.length - 2);
  const mix = VIRIDIS[low].map((part, i) => Math.round(part + (VIRIDIS[low + 1][i] - part) * (at - low)));
  return `rgb(${mix.join(",")})`;
}

/** Classes of equal width in whole minutes, the last one open: {step, count, colours, of(seconds)}. */
function makeScale(seconds) {
  // The open class has the slowest 3 %.
  const sorted = Float64Array.from(seconds).sort();
  const far = sorted.length ? sorted[Math.floor((sorted.length - 1) * 0.97)] / 60 : 1;
  const step = STEPS.find((each) => far / each <= CLASSES) ?? Math.ceil(far / CLASSES / 60) * 60;
  const count = Math.max(2, Math.min(CLASSES, Math.ceil(far / step)));
  // Near is bright, far is dark; the ends differ from the page's own colours.
  const colours = Array.from({ length: count }, (_, i) => viridis(0.97 - 0.87 * (i / (count - 1))));
  return { step, count, colours, of: (value) => Math.min(count - 1, Math.floor(value / 60 / step)) };
}

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const number = (value) => NUMBER.format(value);

/** Minutes and seconds, exactly: 24:31. */
const clock = (seconds) =>
  seconds === NONE ? "–" : `${Math.floor(seconds / 60)}:${String(Math.abs(seconds) % 60).padStart(2, "0")}`;

/** A time in words: 45 s, 24 min, 1 h 12. */
function spoken(seconds) {
  if (seconds === NONE || seconds === null) return "–";
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")}`;
}

/** The duration of a step of a program. */
function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  return spoken(seconds);
}

function bytes(count) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) { count /= 1024; unit++; }
  return `${count < 10 && unit ? count.toFixed(1).replace(".0", "") : Math.round(count)} ${units[unit]}`;
}

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const DAY_YEAR = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const INSTANT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" });
const TIME = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium", timeZone: "UTC" });
const instant = (seconds) => `${INSTANT.format(seconds * 1000)} UTC`;

/** "31 Jul – 28 Aug 2016", or the range's text if it has no dates. */
function period(slice) {
  if (!slice.start || !slice.end) return slice.range || "No date";
  const [start, end] = [new Date(slice.start), new Date(slice.end)];
  const sameYear = start.getUTCFullYear() === end.getUTCFullYear();
  return `${(sameYear ? DAY : DAY_YEAR).format(start)} – ${DAY_YEAR.format(end)}`;
}
const filters = (slice) => [slice.days, slice.time].filter(Boolean).join(" · ") || slice.range;
