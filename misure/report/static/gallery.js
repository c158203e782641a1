"use strict";
/* The gallery: a page of cards at a time, drawn when they come into view. */
{
  const perPage = 24;
  const byId = (id) => document.getElementById(id);
  const list = byId("cards");
  const filters = [...document.querySelectorAll("#gallery-tools [data-filter]")];
  const find = byId("gallery-find");
  const threshold = byId("gallery-threshold");
  const layers = {};
  const visible = new Set();
  let views = new Map();
  let page = 0;
  let falling = false;
  let global = null;
  let active = 0;

  const wordsOf = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
  const said = (card) =>
    [card.method, card.class, card.dataset, card.model, card.group, card.setting, `sample ${card.sample}`, card.unit]
      .join(" ");
  const entries = misure.cards.map((card, order) => ({ card, order, words: wordsOf(said(card)) }));
  /* A number is meant whole: "11" is sample 11, not a unit whose hash happens to hold it. */
  const meant = (word) => (/^\d+$/.test(word) ? (other) => other === word : (other) => other.includes(word));

  const watcher = new IntersectionObserver(
    (changes) => {
      for (const { target, isIntersecting } of changes) {
        if (!isIntersecting) visible.delete(target);
        else {
          visible.add(target);
          views.get(target)?.draw();
        }
      }
    },
    { rootMargin: "200px" },
  );

  const chosen = () => {
    const sought = wordsOf(find.value).map(meant);
    const key = byId("gallery-sort").value;
    const fits = (entry) =>
      filters.every((field) => field.value === "" || String(entry.card[field.dataset.filter]) === field.value) &&
      sought.every((isMeant) => entry.words.some(isMeant));
    const sign = falling ? -1 : 1;
    const compare = (a, b) => {
      const [first, second] = key === "order" ? [a.order, b.order] : [a.card[key], b.card[key]];
      if (first === null || second === null) return (first === null) - (second === null) || a.order - b.order;
      return sign * (first - second) || a.order - b.order;
    };
    return entries.filter(fits).sort(compare);
  };

  const show = (start = 0) => {
    const found = chosen();
    const pages = Math.max(1, Math.ceil(found.length / perPage));
    page = Math.min(pages - 1, Math.max(0, page));
    watcher.disconnect();
    visible.clear();
    const made = found
      .slice(page * perPage, (page + 1) * perPage)
      .map(({ card }) => misure.cardView(card, layers, global));
    views = new Map(made.map((view) => [view.element, view]));
    list.replaceChildren(...views.keys());
    for (const element of views.keys()) watcher.observe(element);
    const from = found.length ? page * perPage + 1 : 0;
    byId("gallery-count").value = `${from} to ${page * perPage + made.length} of ${found.length} explanations`;
    byId("gallery-count").dataset.count = found.length;
    byId("gallery-page").textContent = `Page ${page + 1} of ${pages}`;
    byId("gallery-previous").disabled = page === 0;
    byId("gallery-next").disabled = page === pages - 1;
    byId("gallery-none").hidden = found.length > 0;
    mark(start < 0 ? made.length - 1 : start);
    return pages;
  };

  /* Only one card is a stop for Tab; arrow keys go on from it. */
  const mark = (place) => {
    const all = [...views.keys()];
    active = Math.min(all.length - 1, Math.max(0, place));
    all.forEach((element, i) => { element.tabIndex = i === active ? 0 : -1; });
    return all[active];
  };

  const refresh = () => { page = 0; show(); };

  const turn = (by, start) => {
    const before = page;
    page += by;
    show(start);
    return page !== before;
  };

  const columns = () => {
    const tops = [...views.keys()].map((element) => element.offsetTop);
    return Math.max(1, tops.filter((top) => top === tops[0]).length);
  };

  const moves = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: columns, ArrowUp: () => -columns() };
  list.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move || !views.has(event.target)) return;
    event.preventDefault();
    const next = active + move();
    if (next >= 0 && next < views.size) mark(next)?.focus();
    else if (turn(Math.sign(move()), next < 0 ? -1 : 0)) mark(active)?.focus();
  });
  list.addEventListener("focusin", (event) => {
    const place = [...views.keys()].indexOf(event.target.closest(".card"));
    if (place >= 0) mark(place);
  });

  const redraw = () => {
    for (const [element, view] of views) {
      view.spoil();
      if (visible.has(element)) view.draw();
    }
  };

  const cut = (step) => {
    global = step;
    byId("gallery-threshold-value").value =
      step === null ? "each its own" : `> ${(step / misure.levels).toFixed(3)}`;
    for (const view of views.values()) view.cut(step);
    redraw();
  };

  const fill = (field) => {
    if (field.dataset.filter === "usual") return;
    const values = [...new Set(misure.cards.map((card) => card[field.dataset.filter]))].sort();
    field.append(misure.make("option", { value: "", textContent: "all" }));
    field.append(...values.map((value) => misure.make("option", { value, textContent: value })));
  };

  const layerButtons = [...document.querySelectorAll("[data-layer]")];
  for (const button of layerButtons) {
    layers[button.dataset.layer] = button.getAttribute("aria-pressed") === "true";
    button.addEventListener("click", () => {
      layers[button.dataset.layer] = !layers[button.dataset.layer];
      button.setAttribute("aria-pressed", String(layers[button.dataset.layer]));
      redraw();
    });
  }
  filters.forEach(fill);
  for (const field of [...filters, byId("gallery-sort")]) field.addEventListener("change", refresh);
  find.addEventListener("input", refresh);
  byId("gallery-tools").addEventListener("submit", (event) => event.preventDefault());
  byId("gallery-direction").addEventListener("click", ({ currentTarget }) => {
    falling = !falling;
    currentTarget.setAttribute("aria-pressed", String(falling));
    currentTarget.textContent = falling ? "↓ falling" : "↑ rising";
    refresh();
  });
  threshold.addEventListener("input", () => cut(Number(threshold.value)));
  byId("gallery-reset").addEventListener("click", () => { threshold.value = 0; cut(null); });
  byId("gallery-previous").addEventListener("click", () => turn(-1, 0));
  byId("gallery-next").addEventListener("click", () => turn(1, 0));
  byId("gallery-ramp").style.background = `linear-gradient(to right, ${misure.colours.join(", ")})`;

  /* Show one explanation alone, by its unit; false where it has no card. */
  misure.showUnit = (unit) => {
    if (!misure.cards.some((card) => card.unit === unit)) return false;
    for (const field of filters) field.value = "";
    find.value = unit;
    refresh();
    byId("gallery").scrollIntoView();
    mark(0)?.focus({ preventScroll: true });
    return true;
  };

  show();
}
