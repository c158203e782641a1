"use strict";
/* Filters, sorting, zoom and the plot. Data reaches the page as JSON and as text, never as markup. */
const byId = (id) => document.getElementById(id);

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

/* Claims: filtered by verdict and words, sorted by their headings. */
{
  const body = document.querySelector("#board tbody");
  const rows = [...body.rows].map((row) => ({ row, text: row.textContent.toLowerCase(), ...row.dataset }));
  const tools = document.querySelector("[data-board-tools]");
  const find = byId("claims-find");
  const boxes = [...tools.querySelectorAll("input[name=verdict]")];
  const buttons = [...document.querySelectorAll("#board [data-sort]")];

  const filter = () => {
    const words = find.value.trim().toLowerCase().split(/\s+/);
    const verdicts = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    for (const { row, text, verdict } of rows) {
      row.hidden = !(verdicts.has(verdict) && words.every((word) => text.includes(word)));
    }
    const shown = rows.filter(({ row }) => !row.hidden).length;
    tools.querySelector("[data-board-count]").value = `${shown} of ${rows.length} claims`;
    document.querySelector("[data-board-none]").hidden = shown > 0;
  };

  /* Numbers by size, other texts by letters; what is no number comes last. */
  const compare = (first, second) => {
    const [a, b] = [Number(first), Number(second)];
    if (Number.isNaN(a) && Number.isNaN(b)) return first.localeCompare(second);
    return Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b) : a - b;
  };

  const sort = (button) => {
    const heading = button.closest("th");
    const falling = heading.getAttribute("aria-sort") === "ascending";
    for (const other of buttons) other.closest("th").setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = button.dataset.sort;
    rows.sort((a, b) => (falling ? -1 : 1) * compare(a[key], b[key]) || a.order - b.order);
    body.append(...rows.map(({ row }) => row));
  };

  for (const field of [find, ...boxes]) field.addEventListener("input", filter);
  for (const button of buttons) button.addEventListener("click", () => sort(button));
  tools.addEventListener("submit", (event) => event.preventDefault());
  filter();
}

/* The gallery: cards of one dataset, class and method. */
const cards = [...document.querySelectorAll(".card")];
const fields = [...document.querySelectorAll("#gallery-tools [data-filter]")];

const filterCards = () => {
  for (const card of cards) {
    card.hidden = fields.some((field) => field.value && card.dataset[field.dataset.filter] !== field.value);
  }
  const shown = cards.filter((card) => !card.hidden).length;
  byId("gallery-count").value = `${shown} of ${cards.length} explanations`;
  byId("gallery-none").hidden = shown > 0;
};

for (const field of fields) {
  const values = [...new Set(cards.map((card) => card.dataset[field.dataset.filter]))].sort();
  field.append(...values.map((value) => make("option", { value, textContent: value })));
  field.addEventListener("change", filterCards);
}
filterCards();

/* Show one explanation's card; false where it has none. */
const showUnit = (unit) => {
  const card = cards.find((one) => one.dataset.unit === unit);
  if (!card) return false;
  for (const field of fields) field.value = "";
  filterCards();
  card.scrollIntoView({ block: "center" });
  card.focus({ preventScroll: true });
  return true;
};

/* One picture as large as the window, in a modal dialog: wheel, pinch, dragging and keys zoom and move it. */
{
  const dialog = byId("lightbox");
  const stage = dialog.querySelector(".lightbox-stage");
  const image = dialog.querySelector("img");
  const pointers = new Map();
  let [scale, x, y] = [1, 0, 0];

  const show = () => {
    const room = [stage.clientWidth, stage.clientHeight].map((side) => ((scale - 1) * side) / 2);
    x = Math.min(room[0], Math.max(-room[0], x));
    y = Math.min(room[1], Math.max(-room[1], y));
    image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    byId("lightbox-scale").value = `${Math.round(scale * 100)} %`;
  };

  const move = (dx, dy) => {
    x += dx;
    y += dy;
    show();
  };

  /* Keep what lies under a point of the window where it is; the middle by default. */
  const zoom = (factor, point = null) => {
    const box = stage.getBoundingClientRect();
    const middle = { x: box.left + box.width / 2, y: box.top + box.height / 2 };
    const from = { x: (point ?? middle).x - middle.x, y: (point ?? middle).y - middle.y };
    const next = Math.min(16, Math.max(1, scale * factor));
    x = from.x - ((from.x - x) * next) / scale;
    y = from.y - ((from.y - y) * next) / scale;
    scale = next;
    show();
  };

  const fit = () => {
    [scale, x, y] = [1, 0, 0];
    pointers.clear();
    show();
  };

  const spread = ([a, b]) => ({ size: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });

  const drag = (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const old = pointers.size === 2 ? spread([...pointers.values()]) : null;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (!old) return move(event.clientX - before.x, event.clientY - before.y);
    const now = spread([...pointers.values()]);
    zoom(now.size / Math.max(1, old.size), now);
    move(now.x - old.x, now.y - old.y);
  };

  const keys = {
    "+": () => zoom(1.5),
    "=": () => zoom(1.5),
    "-": () => zoom(1 / 1.5),
    0: fit,
    ArrowLeft: () => move(60, 0),
    ArrowRight: () => move(-60, 0),
    ArrowUp: () => move(0, 60),
    ArrowDown: () => move(0, -60),
  };
  /* Tab goes round inside the dialog. */
  keys.Tab = ({ shiftKey }) => {
    const stops = [...dialog.querySelectorAll("button, [tabindex='0']")];
    const place = stops.indexOf(document.activeElement) + (shiftKey ? -1 : 1);
    stops[(place + stops.length) % stops.length].focus();
  };
  const actions = { in: keys["+"], out: keys["-"], fit, close: () => dialog.close() };

  const enlarge = (button) => {
    const { src, alt } = button.querySelector("img");
    Object.assign(image, { src, alt });
    byId("lightbox-title").textContent = alt;
    dialog.showModal();
    fit();
    stage.focus();
    dialog.addEventListener("close", () => button.focus(), { once: true });
  };

  dialog.addEventListener("keydown", (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key](event);
  });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), { x: event.clientX, y: event.clientY });
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  stage.addEventListener("pointermove", drag);
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  for (const button of dialog.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", actions[button.dataset.zoom]);
  }
  for (const button of document.querySelectorAll("[data-lightbox]")) {
    button.addEventListener("click", () => enlarge(button));
  }
}

/* Dice explained against ratio. Plotly is run when the plot comes near: it is large. */
const choice = byId("plot-choice");
if (choice) {
  const area = byId("plot-area");
  const plots = JSON.parse(byId("plots").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const dressed = (layout) => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: colour("--line"), linecolor: colour("--dim"), zeroline: false, ticks: "outside" };
    const clear = "rgba(0,0,0,0)";
    return {
      ...layout,
      autosize: true,
      paper_bgcolor: clear,
      plot_bgcolor: clear,
      font: { color: colour("--ink"), family: style.fontFamily, size: 14 },
      hoverlabel: { bgcolor: colour("--card"), font: { color: colour("--ink") }, align: "left" },
      xaxis: { ...layout.xaxis, ...axis, minexponent: 4, dtick: 1, tickformat: "~g" },
      yaxis: { ...layout.yaxis, ...axis },
    };
  };

  const draw = async () => {
    if (!window.Plotly) document.head.append(make("script", { textContent: byId("plotly").textContent }));
    const plot = plots[Number(choice.value)];
    const marks = plot.marks.map((mark) => make("span", { className: "mark", textContent: `◇ ${mark}` }));
    byId("plot-marks").replaceChildren(...marks);
    byId("plot-note").textContent = plot.note;
    const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
    await Plotly.react(area, plot.figure.data, dressed(plot.figure.layout), config);
    area.removeAllListeners("plotly_click");
    area.on("plotly_click", ({ points }) => {
      if (!showUnit(points[0].customdata)) byId("plot-note").textContent = "This explanation is not in the gallery.";
    });
  };

  choice.addEventListener("change", draw);
  dark.addEventListener("change", () => window.Plotly && draw());
  const watcher = new IntersectionObserver((changes) => {
    if (!changes.some(({ isIntersecting }) => isIntersecting)) return;
    watcher.disconnect();
    draw();
  }, { rootMargin: "800px" });
  watcher.observe(area);
}
