// The report's page: filters, pictures that enlarge, and sliders over the tiles of a strip. Without it all is still there.
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const make = (tag, parent, options = {}) => parent.appendChild(Object.assign(document.createElement(tag), options));

// ---- filters: a chapter and its row in the summary are shown or hidden together --------------------------------
const words = document.getElementById("words"), kind = document.getElementById("kind"), count = document.getElementById("count");
function filter() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const chapter of $$("section")) {
    const text = chapter.textContent.toLowerCase();
    const fits = wanted.every((word) => text.includes(word)) && (!kind.value || chapter.dataset.kind === kind.value);
    chapter.hidden = !fits;
    document.getElementById(`row-${chapter.id}`).hidden = !fits;
    shown += fits;
  }
  count.textContent = `${shown} of ${$$("section").length} shown`;
}
document.querySelector(".bar").hidden = false;
for (const control of [words, kind]) control.addEventListener("input", filter);
filter();

// ---- pictures --------------------------------------------------------------------------------------------------
const dialog = make("dialog", document.body), large = make("img", dialog);
dialog.addEventListener("click", () => dialog.close());
for (const link of $$("figure a")) link.addEventListener("click", (event) => {
  event.preventDefault();
  const picture = link.firstElementChild;
  large.src = picture.src; large.alt = picture.alt; dialog.setAttribute("aria-label", picture.alt);
  dialog.showModal();
});

// ---- sliders: one tile of the picture at a time, cut out by its place -------------------------------------------
const SIDE = 256;
for (const box of $$(".strip")) {
  const strip = JSON.parse(box.dataset.strip), scale = SIDE / Math.max(strip.tile[0], strip.tile[1]);
  const tile = make("div", box, { className: "tile" }), controls = make("div", box, { className: "controls" });
  tile.setAttribute("role", "img");
  tile.style.width = `${strip.tile[0] * scale}px`; tile.style.height = `${strip.tile[1] * scale}px`;
  tile.style.backgroundImage = `url("${box.dataset.source}")`;
  tile.style.backgroundSize = `${strip.size[0] * scale}px ${strip.size[1] * scale}px`;
  const choice = (label, names) => {
    const field = make("label", controls, { textContent: `${label} ` }), select = make("select", field);
    names.forEach((name, i) => make("option", select, { value: i, textContent: name }));
    field.hidden = names.length < 2;
    return select;
  };
  const row = choice("direction", strip.rows.map((name) => name.replace(/\s*\n\s*/g, ", ")));
  const group = choice("sample", strip.x.map((_, i) => `${i + 1}`));
  const field = make("label", controls, { textContent: "strength " }), told = make("output", field);
  const slider = make("input", controls, { type: "range", min: 0, max: strip.columns.length - 1, step: 1 });
  slider.setAttribute("aria-label", "strength");
  slider.value = Math.max(strip.columns.indexOf("unedited"), 0);
  const show = () => {
    const [x, y] = [strip.x[group.value][slider.value], strip.y[row.value]];
    tile.style.backgroundPosition = `${-x * scale}px ${-y * scale}px`;
    told.textContent = strip.columns[slider.value];
    const text = `${strip.rows[row.value]} at ${strip.columns[slider.value]}`;
    tile.setAttribute("aria-label", text); slider.setAttribute("aria-valuetext", strip.columns[slider.value]);
  };
  for (const control of [row, group, slider]) control.addEventListener("input", show);
  show();
  box.hidden = false;
}
