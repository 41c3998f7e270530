// The pipeline: figures and charts from the ledger and the lake's listing.

function showPipeline(pipeline, tables) {
  const { batches } = pipeline, count = batches.read.length;
  byId("pipeline-empty").hidden = count > 0;
  byId("pipeline-sub").textContent = count ? pipelineSubtitle(pipeline) : "";
  const body = byId("pipeline-body");
  if (!count) {
    show(byId("pipeline-empty"), make("h3", {}, "No batches yet"),
      make("p", {}, "The ledger is empty: nothing has been written to this lake."),
      make("p", {}, "Send records and run the job: ", make("code", {}, "movement produce exports"), " ", make("code", {}, "movement stream")));
    show(body, pipeline.partitions.length ? partitionPanel(pipeline) : null);
    return;
  }
  const rate = batches.read.map((read, i) => batches.duration[i] > 0 ? read / batches.duration[i] : null);
  const lags = batches.lag.filter((lag) => lag !== null);
  const when = batches.finished;
  show(body,
    make("div", { class: "tiles" }, ...tiles(pipeline, rate)),
    pipeline.alarms.length ? make("div", { class: "notice warn" }, make("b", {}, "Alarms in the ledger"),
      make("ul", {}, ...pipeline.alarms.map((alarm) => make("li", {}, alarm)))) : null,
    make("div", { class: "charts" },
      seriesChart({ title: "Records per second", hint: "last batch", values: rate, when, format: number }),
      seriesChart({ title: "Batch duration", hint: "last batch", values: batches.duration, when, format: duration, tone: "second" }),
      lags.length ? seriesChart({ title: "Lag", hint: "at the batch’s end", values: batches.lag, when, format: duration, tone: "third" }) : null,
      seriesChart({ title: "Records in a batch", hint: "last batch", values: batches.read, when, format: number, tone: "fourth" })),
    make("div", { class: "panels" }, rejectPanel(pipeline), sizePanel(pipeline), layerPanel(pipeline)),
    tables.length ? goldPanel(tables) : null,
    partitionPanel(pipeline));
}

function pipelineSubtitle({ batches, total, batch_runs: runs }) {
  const count = batches.read.length;
  const shown = count < total ? `The last ${number(count)} of ${number(total)} batches` : `${number(count)} ${count === 1 ? "batch" : "batches"}`;
  const beside = runs ? `, and ${number(runs)} ${runs === 1 ? "run" : "runs"} of the batch path` : "";
  return `${shown} in the ledger${beside}, the last at ${instant(batches.finished[count - 1])}`;
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

function tiles({ batches, parity, layers, total }, rate) {
  const read = sum(batches.read), replayed = sum(batches.replayed), part = batches.read.length < total;
  const rejected = sum(batches.quarantined) - replayed;  // a replayed record counts in the batch that read it again
  const seconds = sum(batches.duration);
  const lags = batches.lag.filter((lag) => lag !== null);
  const tile = (name, value, detail, tone = "") => make("div", { class: `panel tile ${tone}` },
    make("span", { class: "tile-name" }, name), make("b", {}, value), make("small", {}, detail));
  const share = rejected ? rejected / (read - replayed) * 100 : 0;
  const again = replayed ? `; ${number(replayed)} rejections were replayed` : "";
  return [
    tile("Records read", number(read), `${number(sum(batches.processed))} rows written${part ? ", in these batches" : ""}`),
    tile("Records per second", seconds ? number(read / seconds) : "–", "while batches ran"),
    tile("Lag", lags.length ? duration(lags[lags.length - 1]) : "–", lags.length ? "last record’s age at the end of its batch" : "not in this ledger"),
    tile("Rejected", number(rejected), (rejected ? `${share < 0.1 ? "under 0.1" : share.toFixed(1)} % of what was read` : "nothing in quarantine") + again,
      rejected ? "warn" : "good"),
    parityTile(tile, parity),
    tile("Processed", bytes(layers.processed[1]), `${number(layers.processed[0])} Parquet ${layers.processed[0] === 1 ? "file" : "files"}`),
  ];
}

function parityTile(tile, parity) {
  if (!parity) return tile("Parity", "Not checked", "run movement parity");
  const at = parity.checked_at ? `checked ${instant(Date.parse(parity.checked_at) / 1000)}` : "";
  if (parity.equal) return tile("Parity", "Equal", `${number(parity.stream)} rows on both paths, ${at}`, "good");
  return tile("Parity", "Differs", `${number(parity.only_stream)} only on the stream’s side, ${number(parity.only_batch)} only on the batch side, ${at}`, "bad");
}

function rejectPanel({ reasons }) {
  const rows = Object.entries(reasons).sort((a, b) => b[1] - a[1]);
  return make("div", { class: "panel figure" }, make("h3", {}, "Rejected, by reason"), rows.length
    ? barList(rows.map(([name, count]) => [name.replaceAll("_", " "), count, number(count)]), "warn")
    : make("p", { class: "calm" }, "Nothing of these batches is in quarantine."));
}

function sizePanel({ sizes, listed_all: all }) {
  const names = sizes.classes.map((end, i) => i ? `${bytes(sizes.classes[i - 1])} to ${bytes(end)}` : `under ${bytes(end)}`);
  names.push(`over ${bytes(sizes.classes.at(-1))}`);
  const rows = names.map((name, i) => [name, sizes.files[i], number(sizes.files[i])]);
  return make("div", { class: "panel figure" }, make("h3", {}, "Processed files, by size"), barList(rows, "second"),
    all ? null : make("p", { class: "calm" }, "The lake has more files than this page lists."));
}

function layerPanel({ layers }) {
  const rows = Object.entries(layers).filter(([, [files]]) => files);
  return make("div", { class: "panel figure" }, make("h3", {}, "The lake, by layer"),
    barList(rows.map(([name, [files, size]]) => [name.replaceAll("_", " "), size, `${bytes(size)} · ${number(files)} ${files === 1 ? "file" : "files"}`]), "fourth"));
}

function goldPanel(tables) {
  const rows = tables.map(([name, kind, comment, count, files, size]) => make("tr", {},
    make("th", { scope: "row", title: comment }, name), make("td", { class: "text" }, kind),
    ...(count === null ? [make("td", {}, "not computed yet"), make("td", {}, "–"), make("td", {}, "–")]
      : [number(count), number(files), bytes(size)].map((text) => make("td", {}, text)))));
  return make("div", { class: "panel figure partitions" },
    make("h3", {}, `${number(tables.length)} gold ${tables.length === 1 ? "table" : "tables"}`),
    make("div", { class: "table-scroll short", tabindex: "0", role: "region", "aria-label": "Gold tables" },
      make("table", {}, make("thead", {}, make("tr", {}, ...["Table", "Kind", "Rows", "Files", "Size"].map((name) => make("th", { scope: "col" }, name)))),
        make("tbody", {}, ...rows))));
}

function partitionPanel({ partitions }) {
  const known = partitions.some((partition) => partition[3] !== null);
  const SHOWN = 300;
  const head = ["Partition", "Files", "Size", "Mean file"].concat(known ? ["Rows"] : []);
  const rows = partitions.slice(0, SHOWN).map(([name, files, size, count]) => make("tr", {},
    make("th", { scope: "row" }, name), make("td", {}, number(files)), make("td", {}, bytes(size)),
    make("td", {}, bytes(size / files)), known ? make("td", {}, count === null ? "–" : number(count)) : null));
  return make("div", { class: "panel figure partitions" },
    make("h3", {}, `${number(partitions.length)} ${partitions.length === 1 ? "partition" : "partitions"} of processed`),
    make("div", { class: "table-scroll short", tabindex: "0", role: "region", "aria-label": "Partitions" },
      make("table", {}, make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
        make("tbody", {}, ...rows))),
    partitions.length > SHOWN ? make("p", { class: "calm" }, `${number(partitions.length - SHOWN)} more are not shown.`) : null);
}
