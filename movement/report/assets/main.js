// Draws the page from the data, once or repeatedly.

const meta = JSON.parse(byId("data").textContent);
const source = meta.live ? new LiveSource() : new EmbeddedSource(meta);
const root = document.documentElement;
let travel, shownPipeline;

function notices(...items) {
  show(byId("notices"), ...items.filter(Boolean).map((item) => make("div", { class: "notice warn", role: "alert" }, ...item)));
}

function leftOut(gold) {
  if (!gold?.left_out?.length) return null;
  const names = gold.left_out.slice(0, 5).join("; ") + (gold.left_out.length > 5 ? "; …" : "");
  return [make("b", {}, gold.left_out.length === 1 ? "A date range is left out" : `${number(gold.left_out.length)} date ranges are left out`),
    ` (${names}): this page holds ${number(gold.rows)} of ${number(gold.total)} corridors. For more: `,
    make("code", {}, "--set report.max_rows=N")];
}

async function update(data) {
  byId("lake").textContent = data.lake;
  byId("lake").title = `Lake ${data.lake}, stream ${data.stream}, Glue database ${data.database}`;
  document.title = `Movement report · ${data.lake}`;
  byId("state").textContent = data.problem ? "Not up to date" : data.live ? "Live" : `As of ${instant(data.generated)}`;
  byId("state").classList.toggle("live", data.live && !data.problem);
  byId("footer").textContent = `Stream ${data.stream} · database ${data.database} · ` +
    (data.live ? "refreshed while it is open" : `made ${instant(data.generated)}`);
  if (data.problem) {
    notices([make("b", {}, data.problem.title), " ", data.problem.text]);
    if (!travel?.gold) {
      byId("travel-body").hidden = true;
      byId("travel-empty").hidden = byId("pipeline-empty").hidden = false;
      show(byId("travel-empty"), make("h3", {}, "The lake cannot be read"), make("p", {}, ...withCode(data.problem.remedy)));
      show(byId("pipeline-empty"), make("p", {}, "Nothing to show until the lake can be read."));
      root.dataset.ready = "true";
    }
    return;
  }
  notices(leftOut(data.gold ?? null) ?? (travel?.gold && data.gold?.cities === null ? leftOut(travel.gold) : null));
  // A lake without zones has no section of travel times.
  for (const part of [byId("travel"), byId("travel-link")]) part.hidden = !data.map;
  travel ??= new Travel(source);
  // Redrawn only if the data is new, so that the hovered zone stays.
  const pipeline = JSON.stringify([data.pipeline, data.tables]);
  if (pipeline !== shownPipeline) showPipeline(data.pipeline, data.tables);
  shownPipeline = pipeline;
  // `cities: null` means unchanged.
  if (data.map && (!data.gold || data.gold.cities !== null)) await travel.setGold(data.gold);
  root.dataset.ready = "true";
}

function failed(error) {
  byId("state").textContent = "Not up to date";
  byId("state").classList.remove("live");
  notices([make("b", {}, "Not up to date: "), `${error.message}. Trying again; is the server still running?`]);
}

/** The browser's storage, for the theme; null if it stores nothing for this page. */
const memory = (() => { try { return window.localStorage; } catch { return null; } })();

function setTheme(theme) {
  if (theme) root.dataset.theme = theme;
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  byId("theme").setAttribute("aria-label", `Switch to ${dark ? "light" : "dark"} theme`);
  travel?.map.draw();
  return dark;
}

byId("theme").addEventListener("click", () => {
  const next = setTheme(root.dataset.theme) ? "light" : "dark";
  setTheme(next);
  memory?.setItem("movement-theme", next);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(root.dataset.theme));
setTheme(memory?.getItem("movement-theme") ?? root.dataset.theme);

// Errors of an action after a click: the server's next answer fixes the page or names the problem.
window.addEventListener("unhandledrejection", (event) => { event.preventDefault(); failed(event.reason); });

if (meta.live) byId("state").textContent = "Loading …";
if (typeof DecompressionStream === "undefined") {
  notices([make("b", {}, "This browser is too old for this page. "), "It needs one of 2023 or later."]);
} else {
  source.start(update, failed).catch(failed);
}
