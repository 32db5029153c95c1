// The studio's page. Served, it asks the local server; exported, it shows the strips that lie inside it.
const baked = document.getElementById("data") && JSON.parse(document.getElementById("data").textContent);
const token = new URLSearchParams(location.search).get("token") || "";
const model = new URLSearchParams(location.search).get("model") || "0";
const tab = Math.random().toString(36).slice(2);
const $ = (selector) => document.querySelector(selector);
const make = (tag, parent, options = {}) => parent.appendChild(Object.assign(document.createElement(tag), options));

const page = { sources: [], sliders: [], current: "", second: "", active: 0, images: new Map(), strips: new Map(), thumbs: new Map() };
const edit = { at: [], start: 0, stop: 1, mask: null };  // `at`: position of each slider, 0 to 8; `rest` is unedited
const LAST = 8;

// ---- strengths -----------------------------------------------------------------------------------------------
const between = (values, at) => {
  const low = Math.min(Math.floor(at), values.length - 2);
  return values[low] + (at - low) * (values[low + 1] - values[low]);
};
const place = (slider) => (slider.sign > 0 ? edit.at[slider.id] : LAST - edit.at[slider.id]);
const rest = (slider) => (slider.sign > 0 ? slider.zero : LAST - slider.zero);
const strength = (slider) => between(slider.strengths, place(slider));
const moved = () => page.sliders.filter((slider) => Math.abs(edit.at[slider.id] - rest(slider)) > 1e-6);
const plain = (value) => (value < -0.004 ? "\u2212" : "") + Math.abs(value).toFixed(2);
const signed = (value) => (value > 0.004 ? "+" : "") + plain(value);

// The effect, the ends of its interval, and the number of samples, between two strengths that were measured; null is not known.
function effectAt(slider) {
  if (!slider.measured || !slider.attribute) return null;
  const s = strength(slider), x = slider.tried;
  let low = 0;
  while (low < x.length - 2 && s > x[low + 1]) low += 1;
  const share = Math.min(Math.max((s - x[low]) / (x[low + 1] - x[low]), 0), 1);
  const mixed = (a, b) => (share === 0 ? a : share === 1 ? b : a === null || b === null ? null : a + share * (b - a));
  const near = share === 0 ? [low] : share === 1 ? [low + 1] : [low, low + 1];
  const n = slider.shown.length ? Math.min(...near.map((k) => slider.shown[k])) : null;
  return [...slider.effect[low].map((value, k) => mixed(value, slider.effect[low + 1][k])), n];
}

function effectText(slider) {
  if (!slider.measured) return `${slider.operator ? "an operator, from nothing to the whole map, " : ""}not measured yet: hspace range --direction FILE:${slider.name}`;
  const [low, high] = slider.safe, beyond = slider.because[slider.sign > 0 ? 1 : 0];
  const safe = slider.sign > 0 ? `${plain(low)} to ${plain(high)}` : `${plain(-high)} to ${plain(-low)}`;
  if (edit.start !== page.window[0] || edit.stop !== page.window[1]) return `measured with steps ${page.window.join(" to ")} edited, not with these`;
  const limit = `safe ${safe}` + (beyond === "untested" ? "" : `, then ${beyond}`);
  const effect = effectAt(slider);
  if (!effect) return `moves nothing surely; ${limit}`;
  if (edit.at[slider.id] === rest(slider)) return `${slider.attribute}; ${limit}`;
  const [value, from, to, n] = effect;
  if (value === null) return `${slider.attribute} is not known here, too few samples show it; ${limit}`;
  const facts = [from === null || to === null ? "no interval" : `${signed(from)} to ${signed(to)}`, ...(n === null ? [] : [`n = ${n}`])];
  return `${slider.attribute} ${signed(value)} sd (${facts.join(", ")}); ${limit}`;
}

// ---- pixels --------------------------------------------------------------------------------------------------
async function pixels(base64, count) {
  const picture = new Image();
  picture.src = `data:image/png;base64,${base64}`;
  await picture.decode();
  const canvas = document.createElement("canvas");
  canvas.width = picture.width; canvas.height = picture.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const width = picture.width / count;
  return Array.from({ length: count }, (_, i) => context.getImageData(i * width, 0, width, picture.height));
}
function draw(canvas, image) {
  if (canvas.width !== image.width || canvas.height !== image.height) { canvas.width = image.width; canvas.height = image.height; }
  canvas.getContext("2d").putImageData(image, 0, 0);
}
const stripKey = (source, slider) => `${source}|${slider.id}|${edit.start}-${edit.stop}`;

// What all moved sliders do together, from their strips alone: each adds its own change, cross-faded between two images.
function preview(source) {
  const base = page.images.get(source);
  if (!base) return null;
  const sum = new Float32Array(base.data);
  let complete = true;
  for (const slider of moved()) {
    const strip = page.strips.get(stripKey(source, slider));
    if (!strip) { complete = false; continue; }
    const at = place(slider), low = Math.min(Math.floor(at), LAST - 1), share = at - low;
    const [a, b, zero] = [strip[low].data, strip[low + 1].data, strip[slider.zero].data];
    for (let i = 0; i < sum.length; i += 1) sum[i] += a[i] + share * (b[i] - a[i]) - zero[i];
  }
  const image = new ImageData(new Uint8ClampedArray(sum), base.width, base.height);
  if (edit.mask) masked(image, base);
  return { image, complete };
}
function masked(image, base) {
  for (let i = 0; i < edit.mask.length; i += 1) if (!edit.mask[i]) for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = base.data[4 * i + c];
}

const shownSources = () => (page.second ? [["#first", page.current], ["#second", page.second]] : [["#first", page.current]]);
function show(figure, image, text, kind) {
  draw($(`${figure} .picture`), image);
  const badge = $(`${figure} .badge`);
  badge.textContent = text; badge.dataset.kind = kind;
  if (figure === "#first") $("#reading").textContent = "";  // what was read belongs to the picture before
}
function drawPreviews() {
  for (const [figure, source] of shownSources()) {
    const made = preview(source);
    if (!made) continue;
    const rendered = moved().length === 0 || (baked && moved().length === 1 && Number.isInteger(edit.at[moved()[0].id]));
    const text = moved().length === 0 ? "unedited" : rendered ? "rendered" : made.complete ? "preview" : "preview to come";
    show(figure, made.image, text, rendered ? "exact" : "preview");
  }
}

// ---- server --------------------------------------------------------------------------------------------------
function say(text) { $("#alert").textContent = text; $("#alert").hidden = !text; }
const gone = "The studio\u2019s server has ended. Start hspace studio again and open the address that it prints.";
async function ask(path, body, options = {}) {
  let answer;
  try {
    answer = await fetch(`/api/${path}?model=${encodeURIComponent(model)}`, { method: body === undefined ? "GET" : "POST", headers: { "x-token": token, ...options.headers }, body: body instanceof Blob ? body : body && JSON.stringify(body), signal: options.signal });
  } catch (error) {
    // The network's own error is a TypeError; anything else has been said, or is not the server's end.
    if (error instanceof TypeError) say(gone);
    throw error;
  }
  if (!answer.ok) {
    const message = (await answer.json().catch(() => ({}))).error || `the server answered ${answer.status}`;
    say(message);
    throw new Error(message);
  }
  return answer;
}
async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const part of parts) yield JSON.parse(part);
    }
  } catch (error) {
    // The network's own error is a TypeError; anything else has been said, or is not the server's end.
    if (error instanceof TypeError) say(gone);
    throw error;
  }
}
const bytes = (mask) => btoa(Array.from(mask, (on) => String.fromCharCode(on ? 255 : 0)).join(""));
function request(source) {
  const terms = Object.fromEntries(moved().map((slider) => [slider.id, strength(slider)]));
  return { tab, source, terms, start: edit.start, stop: edit.stop, ...(edit.mask ? { mask: bytes(edit.mask) } : {}) };
}

// One stream at a time: the exact image first, then the strip of the slider in hand. Whatever is newer ends what runs.
const work = { exact: false, running: null, controller: null, version: 0 };
function restart({ exact }) {
  if (baked) return;
  work.exact = exact; work.version += 1;
  work.controller?.abort();
  work.running = (work.running || Promise.resolve()).catch(() => {}).then(drain);
}
async function drain() {
  const version = work.version;
  const stale = () => version !== work.version;
  try {
    if (work.exact && !stale()) {
      for (const [figure, source] of shownSources()) await streamExact(figure, source, stale);
      if (!stale()) work.exact = false;
    }
    for (const [, source] of shownSources()) if (!stale()) await streamStrip(source, page.sliders[page.active], stale);
  } catch (error) {
    if (error.name !== "AbortError") console.warn(error);
  }
}
async function stream(path, body) {
  work.controller = new AbortController();
  return lines(await ask(path, body, { signal: work.controller.signal }));
}
async function streamExact(figure, source, stale) {
  const base = page.images.get(source);
  for await (const frame of await stream("exact", request(source))) {
    if (stale()) return;
    if (frame.error) { say(frame.error); return; }
    if (frame.done) { finish(figure, source, frame); return; }
    const [image] = await pixels(frame.image, 1);
    if (stale()) return;
    const last = frame.step === frame.steps || moved().length === 0;
    if (edit.mask && base) masked(image, base);
    show(figure, image, last ? "exact" : `step ${frame.step} of ${frame.steps}`, last ? "exact" : "preview");
  }
}
function finish(figure, source, frame) {
  if (figure !== "#first") return;
  const same = frame.identity === null || frame.identity === undefined ? "" : `identity ${frame.identity.toFixed(2)}`;
  const changed = Object.entries(frame.changes || {}).filter(([, v]) => Math.abs(v) >= 0.05).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 5).map(([k, v]) => `${k} ${signed(v)}`);
  $("#reading").textContent = moved().length ? [same, ...changed].filter(Boolean).join("  \u00b7  ") : "";
  $("#status").textContent = `Exact picture. ${$("#reading").textContent}`;
}
async function streamStrip(source, slider, stale) {
  const key = slider && stripKey(source, slider);
  if (!slider || (page.strips.has(key) && !page.strips.get(key).partial)) return;
  let last = null;
  for await (const frame of await stream("strip", { tab, source, slider: slider.id, start: edit.start, stop: edit.stop })) {
    if (stale()) return;
    if (frame.error) { say(frame.error); return; }
    last = frame.done ? Object.assign(last, { partial: false }) : Object.assign(await pixels(frame.image, 9), { partial: true });
    page.strips.set(key, last);
    if (!stale() && source === page.current) refresh();
    if (frame.done) return;
  }
}
function refresh() {
  drawStrip();
  if ($("#first .badge").dataset.kind === "preview") drawPreviews();
}

// ---- page ----------------------------------------------------------------------------------------------------
function drawStrip() {
  const slider = page.sliders[page.active];
  const strip = slider && page.strips.get(stripKey(page.current, slider));
  const box = $("#strip");
  box.dataset.done = strip && !strip.partial ? "yes" : "no";
  while (box.children.length < 9) {
    const index = box.children.length;
    const button = make("button", box, { type: "button" });
    make("canvas", button);
    button.addEventListener("click", () => choose(index));
  }
  [...box.children].forEach((button, shown) => {
    if (!slider) return;
    const index = slider.sign > 0 ? shown : LAST - shown;
    button.setAttribute("aria-label", `${slider.name} at ${signed(slider.sign * slider.strengths[index])}`);
    button.setAttribute("aria-pressed", String(edit.at[slider.id] === shown));
    button.disabled = !strip;
    if (strip) draw(button.firstChild, strip[index]);
    button.firstChild.hidden = !strip;
  });
}
function choose(position) {
  const slider = page.sliders[page.active];
  edit.at[slider.id] = position;
  $(`#slider-${slider.id}`).value = position;
  label(slider); drawPreviews(); drawStrip(); restart({ exact: true });
}
function label(slider) {
  const box = $(`#box-${slider.id}`), shown = signed(slider.sign * strength(slider)), unit = slider.unit;
  // What the unit is counted in, such as "sd of effect", is said to screen readers and in the tooltip.
  Object.assign(box.querySelector("output"), { textContent: `${shown} ${unit.split(" of ")[0]}`, title: `${shown} ${unit}` });
  box.querySelector(".effect").textContent = effectText(slider);
  box.querySelector("input").setAttribute("aria-valuetext", `${shown} ${unit}; ${effectText(slider)}`);
}
function activate(slider) {
  if (page.active === slider.id) return;
  page.active = slider.id;
  document.querySelectorAll(".slider").forEach((box) => box.classList.toggle("on", box.id === `box-${slider.id}`));
  drawStrip();
  if (!work.exact) restart({ exact: false });
}
function addSlider(slider) {
  slider.sign = 1;
  slider.zero = slider.strengths.indexOf(0);
  edit.at[slider.id] = rest(slider);
  page.sliders[slider.id] = slider;
  $("#none").hidden = true;
  const box = make("div", $("#sliders"), { className: `slider${slider.id === page.active ? " on" : ""}`, id: `box-${slider.id}` });
  const row = make("div", box, { className: "row" });
  make("label", row, { htmlFor: `slider-${slider.id}`, textContent: slider.name });
  const end = make("span", row);
  make("output", end).setAttribute("for", `slider-${slider.id}`);
  const flip = make("button", end, { type: "button", className: "quiet flip", textContent: "flip" });
  flip.setAttribute("aria-label", `Flip ${slider.name}`);
  const track = make("div", box, { className: "track" });
  const input = make("input", track, { type: "range", id: `slider-${slider.id}`, min: 0, max: LAST, step: 0.05, value: rest(slider) });
  make("p", box, { className: "effect" });
  const move = () => { activate(slider); edit.at[slider.id] = Number(input.value); label(slider); drawPreviews(); };
  input.addEventListener("input", move);
  input.addEventListener("change", () => { move(); drawStrip(); restart({ exact: true }); });
  for (const event of ["focus", "pointerdown"]) input.addEventListener(event, () => activate(slider));
  flip.addEventListener("click", () => {
    slider.sign = -slider.sign;
    edit.at[slider.id] = LAST - edit.at[slider.id];
    input.value = edit.at[slider.id];
    activate(slider); label(slider); drawStrip();
  });
  label(slider);
}
async function thumb(source) {
  const button = make("button", $("#list"), { type: "button", id: `source-${source.id}` });
  const canvas = make("canvas", button);
  make("span", button, { textContent: source.name });
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => select(source.id));
  make("option", $("#compare"), { value: source.id, textContent: source.name });
  page.thumbs.set(source.id, canvas);
}
async function image(source) {
  if (!page.images.has(source)) {
    const base64 = baked ? baked.images[source] : (await (await ask("source", { source })).json()).image;
    const [first] = await pixels(base64, 1);
    page.images.set(source, first);
    draw(page.thumbs.get(source), first);
  }
  if (baked) for (const slider of page.sliders.filter(Boolean)) {
    if (!page.strips.has(stripKey(source, slider))) page.strips.set(stripKey(source, slider), await pixels(baked.strips[source][slider.id], 9));
  }
}
const nameOf = (id) => page.sources.find((source) => source.id === id)?.name || "";
async function select(id) {
  page.current = id;
  document.querySelectorAll("#list button").forEach((button) => button.setAttribute("aria-pressed", String(button.id === `source-${id}`)));
  work.controller?.abort();
  await image(id);
  if (page.current !== id) return;
  $("#first .name").textContent = nameOf(id);
  $("#first .picture").setAttribute("aria-label", `Edited picture of ${nameOf(id)}`);
  setMask(null); drawPreviews(); drawStrip(); restart({ exact: moved().length > 0 });
}
async function compare(id) {
  if (id) await image(id);
  page.second = id;
  $("#second").hidden = !id;
  $("#second .name").textContent = nameOf(id);
  drawPreviews(); restart({ exact: moved().length > 0 });
}
function reset() {
  wholeWindow();
  // Numbers of sliders are the server's: another tab's leave holes here.
  for (const slider of page.sliders.filter(Boolean)) {
    slider.sign = 1; $(`#slider-${slider.id}`).value = edit.at[slider.id] = rest(slider); label(slider);
  }
  setMask(null);
  drawPreviews(); drawStrip(); restart({ exact: false });
}
function wholeWindow() { [edit.start, edit.stop] = page.window; $("#start").value = edit.start; $("#stop").value = edit.stop; }
function range() {
  const [start, stop] = [Number($("#start").value), Number($("#stop").value)];
  if (!(start >= 0 && stop > start && stop <= page.steps)) return say(`Edited steps go from 0 to ${page.steps}, and from is less than to.`);
  say(""); edit.start = start; edit.stop = stop;
  page.sliders.filter(Boolean).forEach(label);
  drawStrip(); restart({ exact: moved().length > 0 });
}

// ---- mask ----------------------------------------------------------------------------------------------------
const brush = { x: 0.5, y: 0.5 };
function setMask(mask) {
  edit.mask = mask;
  const canvas = $("#paint");
  canvas.width = page.width; canvas.height = page.height;
  const paint = new ImageData(page.width, page.height);
  if (mask) for (let i = 0; i < mask.length; i += 1) if (mask[i]) paint.data.set([13, 148, 136, 255], 4 * i);
  canvas.getContext("2d").putImageData(paint, 0, 0);
}
function dab(x, y, on = true) {
  const mask = edit.mask || new Uint8Array(page.width * page.height), radius = (Number($("#brush").value) / 60) * page.width;
  for (let row = 0; row < page.height; row += 1) for (let column = 0; column < page.width; column += 1)
    if (Math.hypot(column + 0.5 - x * page.width, row + 0.5 - y * page.height) <= radius) mask[row * page.width + column] = on ? 1 : 0;
  setMask(mask.some(Boolean) ? mask : null);
}
function painting() {
  const canvas = $("#paint"), on = canvas.hidden;
  canvas.hidden = !on; canvas.tabIndex = on ? 0 : -1;
  $("#painting").setAttribute("aria-pressed", String(on));
  if (on) { setMask(edit.mask); canvas.focus(); } else { drawPreviews(); restart({ exact: moved().length > 0 }); }
}
function watchBrush() {
  const canvas = $("#paint");
  const at = (event) => { const box = canvas.getBoundingClientRect(); dab((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, !event.shiftKey); };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); at(event); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) at(event); });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) { brush.x = Math.min(Math.max(brush.x + step[0] / 24, 0), 1); brush.y = Math.min(Math.max(brush.y + step[1] / 24, 0), 1); $("#status").textContent = `Brush at ${Math.round(100 * brush.x)}, ${Math.round(100 * brush.y)} percent`; }
    else if (event.key === " ") dab(brush.x, brush.y, !event.shiftKey);
    else if (event.key === "Escape") painting();
    else return;
    event.preventDefault();
  });
}
async function busy(button, action) {
  button.disabled = true;
  try { await action(); } catch { /* it has been said */ } finally { button.disabled = false; }
}
const find = () => busy($("#find"), async () => {
  if (!edit.mask) return say("Paint a region first.");
  const { sliders } = await (await ask("find", { ...request(page.current), step: Math.floor(page.steps / 2), count: 2 })).json();
  say(""); sliders.forEach(addSlider); $("#status").textContent = `${sliders.length} directions found`; restart({ exact: false });
});
const save = () => busy($("#save"), async () => { $("#kept").textContent = `Saved as ${(await (await ask("save", request(page.current))).json()).file}`; });
const keep = (event) => { event.preventDefault(); busy($("#keep button"), async () => {
  const { sliders } = await (await ask("keep", { ...request(page.current), name: $("#name").value })).json();
  say(""); sliders.forEach(addSlider); $("#kept").textContent = `Kept as ${$("#name").value}${edit.mask ? ", which edits all of a picture" : ""}`; $("#name").value = "";
}); };
async function upload(file) {
  if (!file) return;
  const { source } = await (await ask("upload", file, { headers: { "x-name": encodeURIComponent([...file.name].slice(0, 60).join("")) } })).json();
  say("");
  if (!page.thumbs.has(source)) { page.sources.push({ id: source, name: file.name.slice(0, 60), kind: "photo" }); thumb(page.sources.at(-1)); }
  await select(source);
}
async function heartbeat() { try { await ask("alive"); if ($("#alert").textContent === gone) say(""); } catch { /* said */ } }
function theme() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  if (!baked) sessionStorage.setItem("theme", document.documentElement.dataset.theme);  // for the page of another model
}

// The models are links to this page: each tab has one of its own, and a link says to everybody that it leads elsewhere.
async function models() {
  const { models: names } = await (await ask("models")).json();
  names.forEach((name, number) => {
    const link = make("a", $("#models"), { textContent: name, href: `?${new URLSearchParams({ token, model: number })}` });
    if (String(number) === model) link.setAttribute("aria-current", "page");
  });
  $("#models").hidden = names.length < 2;
}
async function begin() {
  if (!baked) {
    if (sessionStorage.getItem("theme")) document.documentElement.dataset.theme = sessionStorage.getItem("theme");
    await models();
  }
  const state = baked || (await (await ask("state")).json());
  Object.assign(page, { sources: state.sources, steps: state.steps, window: state.window, width: state.width, height: state.height });
  wholeWindow();
  $("#stop").max = state.steps; $("#start").max = state.steps - 1;
  document.title = `${state.model} \u00b7 hspace studio`;
  $("#model").textContent = `${$("#models").hidden ? `${state.model} \u00b7 ` : ""}${state.width} \u00d7 ${state.height} pixels \u00b7 ${state.steps} steps`;
  state.sliders.forEach(addSlider);
  $("#none").hidden = state.sliders.length > 0;
  state.sources.forEach(thumb);
  if (baked) document.querySelectorAll(".server").forEach((part) => { part.hidden = true; });
  $("#theme").addEventListener("click", theme);
  $("#reset").addEventListener("click", reset);
  $("#compare").addEventListener("change", (event) => compare(event.target.value));
  $("#file").addEventListener("change", (event) => upload(event.target.files[0]).catch(() => {}));
  $("#start").addEventListener("change", range); $("#stop").addEventListener("change", range);
  $("#painting").addEventListener("click", painting); $("#unpaint").addEventListener("click", () => { setMask(null); drawPreviews(); restart({ exact: moved().length > 0 }); });
  $("#find").addEventListener("click", find); $("#save").addEventListener("click", save); $("#keep").addEventListener("submit", keep);
  watchBrush();
  if (state.sources.length) await select(state.sources[0].id);
  document.documentElement.dataset.ready = "yes";
  $("#status").textContent = `${state.model}: ${state.sources.length} pictures, ${state.sliders.length} directions`;
  if (!baked) { setInterval(heartbeat, 3000); for (const source of state.sources) await image(source.id); }
  else for (const source of state.sources) await image(source.id);
}
begin().catch((error) => { $("#model").textContent = ""; if ($("#alert").hidden) say(String(error.message || error)); });
