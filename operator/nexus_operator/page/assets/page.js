// The page: draws what the operator's feed says. It reads, and asks for nothing to be changed.
// Every text goes into the document as text; there is no markup in here, and no address but
// relative ones.

// Shapes, so that no state is told by its colour alone; drawn, so that no font has to have them.
const SHAPES = {
  Excluded: "M2 2L10 10M10 2L2 10",
  Unhealthy: "M6 1.5L11 10.5H1Z",
  Probation: "M6 1.5A4.5 4.5 0 0 0 6 10.5ZM6 1.5A4.5 4.5 0 0 1 6 10.5",
  Suspended: "M3.5 2V10M8.5 2V10",
  Active: "M6 1.5A4.5 4.5 0 0 0 6 10.5A4.5 4.5 0 0 0 6 1.5Z",
  "": "M6 1.5A4.5 4.5 0 0 0 6 10.5A4.5 4.5 0 0 0 6 1.5M6 4V6.5M6 8V8.5",
};
const SOLID = ["Active", "Unhealthy"];
const SVG = "http://www.w3.org/2000/svg";
const ORDER = ["Excluded", "Unhealthy", "Probation", "Suspended", "", "Active"];
const SILENT_MS = 25000;
const HIDDEN_MS = 20000;
const TABLES = ["backends", "sparks", "quality", "routing"];

const $ = (id) => document.getElementById(id);
const known = Object.fromEntries(TABLES.map((name) => [name, new Map()]));
const lines = new Map(); // uid -> the row's elements
const chosen = new Set(); // states to show; none: all
let head = {};
let offset = 0; // the operator's clock minus ours, seconds
let sort = { column: "state", down: false };
let total = 0;

// --- small tools ---

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((each) => each !== null && each !== undefined));
  return made;
}

function drawn(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const count = (n) => (n === undefined || n === null ? "" : n.toLocaleString("en"));
const plural = (n, one, more = one + "s") => `${count(n)} ${n === 1 ? one : more}`;
const milliseconds = (n) => (n === undefined ? "" : n < 10000 ? `${count(n)} ms` : `${(n / 1000).toFixed(1)} s`);
const now = () => Date.now() / 1000 + offset;
const full = (row) => `${row.namespace}/${row.name}`;
const clock = (seconds) => new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC";

const moment = (text) => (text ? clock(Date.parse(text) / 1000) : "");

function ago(seconds) {
  const passed = Math.max(0, Math.round(now() - seconds));
  if (passed < 60) return `${passed} s`;
  if (passed < 3600) return `${Math.floor(passed / 60)} min`;
  if (passed < 86400) return `${Math.floor(passed / 3600)} h ${Math.floor((passed % 3600) / 60)} min`;
  return `${Math.floor(passed / 86400)} d`;
}

function stateMark(state) {
  const mark = make("span", { class: "state" });
  const shape = drawn("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, drawn("path", {}));
  mark.append(shape, make("span"));
  return setState(mark, state);
}

function setState(mark, state) {
  if (mark.dataset.state === state) return mark;
  mark.dataset.state = state;
  const path = mark.firstChild.firstChild;
  path.setAttribute("d", SHAPES[state] ?? SHAPES[""]);
  path.setAttribute("fill", SOLID.includes(state) ? "currentColor" : "none");
  write(mark.lastChild, state || "not seen yet");
  return mark;
}

const link = (...parts) => "#/" + parts.map(encodeURIComponent).join("/");
const share = (row) => (total && row.requests ? row.requests / total : 0);
const errorRate = (row) => (row.requests ? (row.errors ?? 0) / row.requests : null);

// --- sparklines: a minute's requests as a bar up, the share of them that failed as a bar down ---

function sparkline(large) {
  const paths = ["base", "requests", "errors"].map((name) => drawn("path", { class: name, fill: "none" }));
  paths[0].setAttribute("d", "M0 16H60");
  return drawn("svg", { viewBox: "0 0 60 24", preserveAspectRatio: "none", class: large ? "spark large" : "spark", role: "img" }, ...paths);
}

function bars(heights, least, most) {
  const path = heights.map((height, place) => {
    if (!height) return "";
    const end = 16 + Math.sign(most) * Math.max(least, height * Math.abs(most));
    return `M${place + 0.5} 16V${end.toFixed(2)}`;
  });
  return path.join("");
}

function drawSpark(box, spark) {
  const requests = spark?.requests ?? [];
  const errors = spark?.errors ?? [];
  const most = Math.max(1, ...requests);
  box.children[1].setAttribute("d", bars(requests.map((each) => each / most), 0.8, -15.5));
  box.children[2].setAttribute("d", bars(errors.map((each, place) => (requests[place] ? each / requests[place] : 0)), 1.5, 8));
  const sum = (values) => values.reduce((all, each) => all + each, 0);
  const told = requests.length
    ? `Last hour by minute: ${plural(sum(requests), "request")}, ${plural(sum(errors), "error")}, at most ${count(Math.max(0, ...requests))} a minute`
    : "No figures by minute yet";
  box.setAttribute("aria-label", told);
}

// --- the list of backends ---

const byState = (row) => ORDER.indexOf(row.state) * 2 - (row.mend ? 1 : 0);
const COLUMNS = [
  { key: "state", head: "State", value: byState },
  { key: "name", head: "Backend", value: full },
  { key: "reason", head: "Why", value: (row) => row.reason ?? "" },
  { key: "since", head: "Since", value: (row) => row.since, number: true },
  { key: "errors", head: "Errors 1 h", value: errorRate, number: true, most: true },
  { key: "p50", head: "TTFT p50", value: (row) => row.p50, number: true, most: true },
  { key: "p95", head: "TTFT p95", value: (row) => row.p95, number: true, most: true },
  { key: "requests", head: "Requests 1 h", value: (row) => row.requests, number: true, most: true },
  { key: "share", head: "Share", value: share, number: true, most: true },
  { key: "spark", head: "Last hour" },
];

function drawHeads() {
  for (const column of COLUMNS) {
    const cell = make("th", { scope: "col", class: column.number ? "number" : null });
    if (column.value) {
      const button = make("button", { type: "button", "data-column": column.key });
      button.addEventListener("click", () => {
        sort = { column: column.key, down: sort.column === column.key ? !sort.down : Boolean(column.most) };
        showSort();
        arrange();
      });
      cell.append(button);
    } else {
      cell.textContent = column.head;
    }
    $("heads").append(cell);
  }
  showSort();
}

function showSort() {
  COLUMNS.forEach((column, place) => {
    if (!column.value) return;
    const cell = $("heads").children[place];
    const here = sort.column === column.key;
    if (here) cell.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
    write(cell.firstChild, column.head);
  });
}

function newLine(uid) {
  const line = { tr: make("tr", { "data-uid": uid }), cells: {} };
  for (const column of COLUMNS) {
    const cell = make("td", { class: column.number ? "number" : `of-${column.key}` });
    line.cells[column.key] = cell;
    line.tr.append(cell);
  }
  line.state = stateMark("");
  line.cells.state.append(line.state);
  line.link = make("a", { href: "#/" });
  line.space = make("small");
  line.cells.name.append(line.link, line.space);
  line.reason = make("span");
  line.message = make("span");
  line.cells.reason.append(line.reason, line.message);
  line.spark = sparkline(false);
  line.cells.spark.append(line.spark);
  line.tr.addEventListener("click", (event) => {
    if (event.target.closest("a") === null && String(getSelection()) === "") location.hash = line.link.hash;
  });
  return line;
}

function drawLine(uid, row) {
  let line = lines.get(uid);
  if (line === undefined) lines.set(uid, (line = newLine(uid)));
  else if (line.row.state !== row.state) {
    line.tr.classList.remove("fresh");
    requestAnimationFrame(() => line.tr.classList.add("fresh"));
  }
  line.row = row;
  setState(line.state, row.state);
  write(line.link, row.name);
  line.link.href = link("backend", row.namespace, row.name);
  write(line.space, `${row.namespace} · ${row.type}`);
  const out = row.models_out ? ` · ${plural(row.models_out, "model")} left out` : "";
  const reason = row.reason === row.state ? "" : row.reason ?? "";
  write(line.reason, (row.mend ? "Needs a person: " : "") + reason + out);
  write(line.message, row.message ?? "");
  line.cells.reason.title = row.message ?? "";
  write(line.cells.errors, row.error_rate ?? "");
  line.cells.errors.title = row.requests ? `${count(row.errors ?? 0)} of ${plural(row.requests, "request")}` : "no request in the last hour";
  write(line.cells.p50, milliseconds(row.p50));
  write(line.cells.p95, milliseconds(row.p95));
  write(line.cells.requests, count(row.requests));
  line.words = [full(row), row.state, row.reason, row.policy, row.type, row.mend ? "mend" : ""].join(" ").toLowerCase();
}

function drawShared() {
  for (const line of lines.values()) {
    const part = share(line.row);
    write(line.cells.share, part ? (part < 0.0005 ? "<0.1%" : `${(100 * part).toFixed(1)}%`) : "");
  }
}

function drawTimes() {
  for (const line of lines.values()) {
    const since = line.row.since;
    write(line.cells.since, since === undefined ? "" : ago(since));
    if (since !== undefined) line.cells.since.title = clock(since);
  }
}

function wanted(line) {
  if (chosen.size && !chosen.has(line.row.state)) return false;
  return $("filter").value.toLowerCase().split(/\s+/).filter(Boolean).every((word) =>
    word.length > 1 && word.startsWith("-") ? !line.words.includes(word.slice(1)) : line.words.includes(word),
  );
}

function compare(a, b) {
  const value = COLUMNS.find((column) => column.key === sort.column).value;
  const [x, y] = [value(a.row), value(b.row)];
  const [noX, noY] = [x === null || x === undefined, y === null || y === undefined];
  if (noX !== noY) return noX ? 1 : -1; // without data: last, in both directions
  const order = noX || x === y ? 0 : x < y ? -1 : 1;
  const names = full(a.row) < full(b.row) ? -1 : 1;
  return order ? (sort.down ? -order : order) : names;
}

function arrange() {
  const shown = [...lines.values()].filter(wanted).sort(compare);
  const trs = shown.map((line) => line.tr);
  const body = $("rows");
  if (trs.length !== body.children.length || trs.some((tr, place) => tr !== body.children[place])) {
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    body.replaceChildren(...trs);
    if (focused !== null && body.contains(focused)) focused.focus({ preventScroll: true });
  }
  write($("shown"), `${count(shown.length)} of ${plural(lines.size, "backend")}`);
  const empty = shown.length ? "" : lines.size ? "No backend matches: clear the filter." : "There is no LLMBackend here yet.";
  write($("empty"), empty);
  $("empty").hidden = empty === "";
  drawStates();
}

function drawStates() {
  const numbers = new Map();
  for (const line of lines.values()) numbers.set(line.row.state, (numbers.get(line.row.state) ?? 0) + 1);
  const box = $("states");
  for (const state of ORDER) {
    let button = box.querySelector(`[data-of="${state}"]`);
    const number = numbers.get(state) ?? 0;
    if (button === null) {
      button = make("button", { type: "button", "data-of": state, "aria-pressed": "false" }, stateMark(state), " ", make("b"));
      button.addEventListener("click", () => {
        if (!chosen.delete(state)) chosen.add(state);
        button.setAttribute("aria-pressed", String(chosen.has(state)));
        arrange();
      });
      box.append(button);
    }
    write(button.lastChild, count(number));
    button.hidden = number === 0 && !chosen.has(state);
  }
}

// --- details ---

function table(heads, rows, label) {
  const made = make("table", { "aria-label": label }, make("thead", {}, make("tr", {}, ...heads.map((each) => make("th", { scope: "col" }, each)))));
  made.append(make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell ?? ""))))));
  return make("div", { class: "wide" }, made);
}

function facts(pairs) {
  const list = make("dl", { class: "facts" });
  for (const [term, value] of pairs) {
    if (value === undefined || value === null || value === "") continue;
    list.append(make("div", {}, make("dt", {}, term), make("dd", {}, String(value))));
  }
  return list;
}

function timeline(moments) {
  const list = make("ol", { class: "timeline", "aria-label": "States, the latest first" });
  for (const each of moments) {
    const item = make("li", {}, stateMark(each.state), each.model ? ` model ${each.model}` : "", each.reason && each.reason !== each.state ? ` · ${each.reason}` : "", " ");
    item.append(make("time", { datetime: new Date(each.at * 1000).toISOString() }, `${clock(each.at)}, ${ago(each.at)} ago`));
    if (each.message) item.append(make("p", {}, each.message));
    list.append(item);
  }
  return list;
}

function figures(row) {
  return [
    ["Errors 1 h", row.requests ? `${row.error_rate} (${count(row.errors ?? 0)} of ${count(row.requests)})` : "no request"],
    ["TTFT p50", milliseconds(row.p50)],
    ["TTFT p95", milliseconds(row.p95)],
    ["Share of traffic", row.requests ? `${(100 * share(row)).toFixed(1)}%` : ""],
    ["Throttled 1 h", count(row.throttled)],
    ["Success 24 h", row.success_24h ? `${row.success_24h} of ${count(row.requests_24h)}` : ""],
    ["Reporters", count(row.reporters)],
  ];
}

function drawBackend(uid, told) {
  const row = known.backends.get(uid) ?? told.row;
  const box = sparkline(true);
  drawSpark(box, known.sparks.get(uid));
  const out = told.exclusion;
  const parts = [
    make("a", { class: "back", href: "#/" }, "Back to all backends"),
    make("h2", {}, full(row)),
    make("p", { class: "said" }, stateMark(row.state), row.reason === row.state ? "" : ` · ${row.reason ?? ""}`, row.since === undefined ? "" : ` · for ${ago(row.since)}`, row.mend ? " · needs a person" : ""),
    make("p", { class: "said", id: "message" }, row.message ?? ""),
    facts([...figures(row), ["Policy in force", row.policy ?? "the defaults"]]),
    make("h3", {}, "Last hour by minute: requests up, the share that failed down"),
    box,
    make("h3", {}, "What happened"),
    timeline(told.timeline ?? []),
  ];
  if (out) {
    parts.push(make("h3", {}, "Latest exclusion"), facts([
      ["Rule", out.rule], ["From", moment(out.start)], ["Until", moment(out.until)], ["Back since", moment(out.recovered)],
      ["Errors", out.requests === undefined ? "" : `${count(out.errors ?? 0)} of ${count(out.requests)}`],
      ["Exclusions in a row", count(out.count)], ["Share on probation", out.probation_share], ["Reason", out.reason], ["To do", out.suggested_action],
    ]));
  }
  parts.push(make("h3", {}, "Conditions"), table(["Type", "Status", "Reason", "Message", "Since"], (told.conditions ?? []).map((each) => [each.type, each.status, each.reason, each.message, moment(each.since)]), "Conditions"));
  const models = (told.models ?? []).map((each) => [each.name, stateMark(each.state), each.message || each.reason, each.error_rate, count(each.requests), milliseconds(each.p50), milliseconds(each.p95)]);
  if (models.length) {
    parts.push(make("h3", {}, "Models"), table(["Model", "State", "Why", "Errors 1 h", "Requests 1 h", "TTFT p50", "TTFT p95"], models, "Models"));
    if (told.models_omitted) parts.push(make("p", {}, `${plural(told.models_omitted, "more model")} with figures`));
  }
  if (told.serves) parts.push(make("p", { class: "said" }, `Serves without figures: ${told.serves.join(", ")}`));
  parts.push(make("h3", {}, "Object"), facts([
    ["Type", row.type], ["URL", told.url], ["Privacy zone", told.zone], ["Credentials", told.auth], ["Priority", told.priority],
    ["Tier", told.tier], ["Max concurrency", told.max_concurrency], ["Probe latency", milliseconds(told.latency)],
  ]));
  return parts;
}

function drawPolicies() {
  const quality = [...known.quality.values()].sort((a, b) => (full(a) < full(b) ? -1 : 1));
  const routing = [...known.routing.values()].sort((a, b) => (full(a) < full(b) ? -1 : 1));
  const parts = [make("h2", {}, "Policies"), make("h3", {}, "Quality: when a backend counts as bad")];
  parts.push(quality.length ? table(["Policy", "Selects", "Enforcement", "In force", "Matches", "For", "Excluded", "Said"], quality.map((each) => [
    make("a", { href: link("policy", each.namespace, each.name) }, full(each)), each.selector || "all backends", each.enforcement, each.reason,
    count(each.matched), count(each.effective), each.enforcement === "Audit" ? `would: ${(each.would_exclude ?? []).join(", ") || "none"}` : count(each.excluded), each.message,
  ]), "Quality policies") : make("p", {}, "There is none: the defaults are in force for every backend."));
  parts.push(make("h3", {}, "Routing: how requests are spread, and what a month may cost"));
  parts.push(routing.length ? table(["Policy", "Strategy", "In force", "Budget", "Spent", "Aliases", "Fallbacks", "Said"], routing.map((each) => [
    full(each), each.strategy, each.reason, each.limit ? `${each.budget ?? "not known yet"}: limit ${each.limit} USD, soft at ${each.soft_limit}, then ${each.action}` : "no limit",
    each.spent ? `${each.spent} USD in ${each.month}` : "", count(each.aliases ?? 0), count(each.fallbacks ?? 0), each.message,
  ]), "Routing policies") : make("p", {}, "There is none: the defaults route."));
  return parts;
}

function drawPolicy(uid, told) {
  const row = known.quality.get(uid);
  const parts = [
    make("a", { class: "back", href: "#/policies" }, "Back to all policies"),
    make("h2", {}, full(row)),
    make("p", { class: "said" }, `${row.reason ?? ""} · ${row.message ?? ""}`),
    facts([["Selects", row.selector || "all backends"], ["Enforcement", row.enforcement], ...Object.entries(row.rules)]),
    make("h3", {}, "What it matches"),
  ];
  const found = told.matches ?? [];
  parts.push(found.length ? table(["Backend", "State", "In force there"], found.map((each) => [
    make("a", { href: link("backend", row.namespace, each.name) }, each.name), stateMark(each.state), each.winner === undefined ? "the defaults" : each.winner === row.name ? "this policy" : each.winner,
  ]), "Backends that it matches") : make("p", {}, "No backend of its namespace."));
  if (told.omitted) parts.push(make("p", {}, `and ${plural(told.omitted, "more", "more")}`));
  return parts;
}

// --- views, by what the address says after # ---

const view = { name: "", namespace: "", object: "", told: null, text: "", asked: 0, again: 0 };
const DETAILS = { backend: { table: "backends", draw: drawBackend }, policy: { table: "quality", draw: drawPolicy } };

function route() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return "";
    }
  });
  const left = view.name === "backend" ? `${view.namespace}/${view.object}` : "";
  const name = parts[0] in DETAILS || parts[0] === "policies" ? parts[0] : "backends";
  Object.assign(view, { name, namespace: parts[1] ?? "", object: parts[2] ?? "", told: null, text: "" });
  for (const section of ["backends", "backend", "policies", "policy"]) $(section).hidden = section !== name;
  const policies = name === "policies" || name === "policy";
  for (const [id, here] of [["to-backends", !policies], ["to-policies", policies]]) {
    if (here) $(id).setAttribute("aria-current", "page");
    else $(id).removeAttribute("aria-current");
  }
  document.title = view.object ? `${view.object} · Nexus` : "Nexus";
  if (name in DETAILS) {
    $(name).replaceChildren(make("p", {}, "Loading"));
    scrollTo(0, 0);
    ask();
  }
  draw();
  if (name === "backends" && left) [...lines.values()].find((line) => full(line.row) === left)?.link.focus();
}

function uidOf() {
  for (const [uid, row] of known[DETAILS[view.name].table]) {
    if (row.namespace === view.namespace && row.name === view.object) return uid;
  }
  return undefined;
}

async function ask() {
  const { name, namespace, object } = view;
  const mine = ++view.asked;
  const address = `page/${name}?${new URLSearchParams({ namespace, name: object })}`;
  let told = null;
  try {
    const answer = await fetch(address, { credentials: "same-origin" });
    told = answer.ok ? await answer.json() : { missing: (await answer.json()).error };
  } catch {
    return; // the feed says that the operator is away, and asks again when it is back
  }
  if (mine !== view.asked) return;
  view.told = told;
  drawDetail();
}

function askSoon() {
  if (!(view.name in DETAILS) || view.again) return;
  view.again = setTimeout(() => {
    view.again = 0;
    if (view.name in DETAILS) ask();
  }, 300);
}

function drawDetail() {
  if (!(view.name in DETAILS) || view.told === null) return;
  const section = $(view.name);
  const uid = uidOf();
  if (view.told.missing || uid === undefined) {
    if (known.backends.size || view.told.missing) {
      section.replaceChildren(make("a", { class: "back", href: "#/" }, "Back to all backends"), make("p", {}, view.told.missing ?? "It is not there any more."));
    }
    return;
  }
  // Somebody copies from it, or nothing is new: it stays as it is.
  if (!getSelection().isCollapsed && section.contains(getSelection().anchorNode)) return;
  const text = JSON.stringify([view.told, known.backends.get(uid), known.quality.get(uid), known.sparks.get(uid), Math.floor(now() / 5)]);
  if (text === view.text) return;
  view.text = text;
  const hadFocus = section.contains(document.activeElement);
  const { scrollX, scrollY } = window;
  section.replaceChildren(...DETAILS[view.name].draw(uid, view.told));
  scrollTo(scrollX, scrollY);
  if (hadFocus) section.querySelector("a.back").focus({ preventScroll: true });
}

function draw() {
  total = 0;
  for (const row of known.backends.values()) total += row.requests ?? 0;
  drawShared();
  drawTimes();
  arrange();
  if (view.name === "policies") {
    const text = JSON.stringify([[...known.quality], [...known.routing]]);
    if (text !== view.text) {
      view.text = text;
      const focused = document.activeElement?.getAttribute?.("href");
      $("policies").replaceChildren(...drawPolicies());
      for (const each of $("policies").querySelectorAll("a")) if (each.getAttribute("href") === focused) each.focus({ preventScroll: true });
    }
  }
  drawDetail();
}

// --- the feed ---

let feed = null;
let heard = 0;
let number = 0;
let pause = 500;

function linkSays(state, text) {
  $("link").dataset.state = state;
  write($("link-text"), text);
}

function take(message, whole) {
  heard = Date.now();
  const told = JSON.parse(message.data);
  const expected = number + 1;
  number = Number(message.lastEventId);
  if (!whole && number !== expected) return connect();
  offset = told.now - Date.now() / 1000;
  if (whole) {
    for (const name of TABLES) known[name].clear();
    for (const uid of [...lines.keys()]) if (!(uid in (told.backends ?? {}))) lines.delete(uid);
  }
  for (const name of TABLES) {
    for (const [uid, row] of Object.entries(told[name] ?? {})) known[name].set(uid, row);
  }
  for (const uid of told.gone ?? []) {
    for (const name of TABLES) known[name].delete(uid);
    lines.delete(uid);
  }
  for (const [uid, row] of Object.entries(told.backends ?? {})) drawLine(uid, row);
  for (const [uid, spark] of Object.entries(told.sparks ?? {})) if (lines.has(uid)) drawSpark(lines.get(uid).spark, spark);
  if (told.head) takeHead(told.head);
  pause = 500;
  linkSays("live", "live");
  if (whole || (view.name in DETAILS && uidOf() in { ...told.backends, ...told.quality }) || told.gone) askSoon();
  draw();
}

function takeHead(told) {
  head = told;
  const places = head.places.length ? head.places.join(", ") : "all namespaces";
  write($("where"), `${places} · ${plural(head.reporters ?? 0, "proxy", "proxies")} reporting · operator ${head.version}, up ${ago(head.started)}`);
  const standby = head.leading ? "" : "This operator does not lead: the figures and states are with the one that does. ";
  const said = head.problem || !head.leading ? standby + (head.problem ?? "") : "";
  write($("notice"), said);
  $("notice").hidden = said === "";
}

function connect() {
  feed?.close();
  feed = new EventSource("page/events");
  heard = Date.now();
  feed.addEventListener("snapshot", (message) => take(message, true));
  feed.addEventListener("delta", (message) => take(message, false));
  feed.addEventListener("beat", () => (heard = Date.now()));
  feed.addEventListener("error", (event) => {
    linkSays("lost", "the operator does not answer: trying again");
    if (event.target === feed && feed.readyState === EventSource.CLOSED) {
      setTimeout(() => event.target === feed && connect(), pause);
      pause = Math.min(8000, pause * 2);
    }
  });
}

setInterval(() => {
  if (feed !== null && Date.now() - heard > SILENT_MS) {
    linkSays("lost", "nothing was heard for a while: trying again");
    connect();
  }
  drawTimes();
  drawDetail();
}, 5000);

let leaving = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(leaving);
  if (!document.hidden) {
    if (feed === null) connect();
  } else {
    leaving = setTimeout(() => {
      feed?.close();
      feed = null;
      linkSays("paused", "paused while hidden");
    }, HIDDEN_MS);
  }
});

// --- keyboard and theme ---

function move(steps) {
  const links = [...$("rows").querySelectorAll("td.of-name a")];
  if (!links.length) return;
  const here = links.indexOf(document.activeElement);
  const next = here < 0 ? (steps > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, here + steps));
  links[next].focus();
  links[next].scrollIntoView({ block: "nearest" });
}

const MOVES = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -1e9, End: 1e9 };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target === $("filter");
  if (event.key === "Escape") {
    if (view.name === "policy") location.hash = "#/policies";
    else if (view.name !== "backends") location.hash = "#/";
    else if (typing && $("filter").value === "") $("filter").blur();
    else {
      $("filter").value = "";
      arrange();
    }
    event.preventDefault();
  } else if (event.key === "/" && !typing) {
    if (view.name !== "backends") location.hash = "#/";
    setTimeout(() => $("filter").focus());
    event.preventDefault();
  } else if (typing && event.key === "Enter") {
    move(1);
    event.preventDefault();
  } else if (view.name === "backends" && event.key in MOVES && !(typing && !["ArrowDown", "ArrowUp"].includes(event.key))) {
    move(MOVES[event.key]);
    event.preventDefault();
  }
});

const THEMES = ["system", "light", "dark"];

function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  write($("theme"), `Theme: ${theme}`);
  try {
    localStorage.setItem("nexus-theme", theme);
  } catch {
    // private windows keep nothing
  }
}

function storedTheme() {
  try {
    return localStorage.getItem("nexus-theme");
  } catch {
    return null;
  }
}

$("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme ?? "system";
  setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
});
$("filter").addEventListener("input", arrange);
addEventListener("hashchange", route);
setTheme(THEMES.includes(storedTheme()) ? storedTheme() : "system");
drawHeads();
route();
connect();
