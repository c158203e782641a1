"use strict";
/* One explanation: its picture, its threshold and its numbers. */
misure.cardView = (card, layers, startAt) => {
  const { make, number } = misure;
  const usual = card.itself ? 0 : Math.round((card.results[0].threshold ?? 0) * misure.levels);
  const title = `${card.method}, ${card.class}`;
  const canvas = make("canvas", { width: 1, height: 1 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${title}, ${card.dataset}, sample ${card.sample}`);
  canvas.style.aspectRatio = `${card.width} / ${card.height}`;
  const slider = make("input", { type: "range", min: 0, max: misure.levels, step: 1, value: startAt ?? usual });
  slider.setAttribute("aria-label", `Threshold of ${title}, sample ${card.sample}`);
  const live = make("output", { className: "live" });
  let maps = null;
  let stale = true;

  const asText = () => `> ${(slider.value / misure.levels).toFixed(3)}`;

  const draw = async () => {
    if (!stale) return;
    stale = false;
    maps ??= await misure.mapsOf(card);
    if (!canvas.isConnected) return;
    const step = Number(slider.value);
    const ratio = misure.above(maps.saliency, step) / card.object;
    live.dataset.ratio = String(ratio);
    live.value = `map ${asText()}: ratio ${number(ratio)}`;
    misure.draw(canvas, card, maps, layers, step);
  };

  const redraw = () => {
    stale = true;
    return draw();
  };

  const enlarge = () => {
    if (maps) misure.enlarge(canvas.toDataURL(), `${title}, ${card.dataset}, sample ${card.sample}`, element, true);
  };

  const numbers = card.results.map((result) =>
    make(
      "tr",
      {},
      make("td", { textContent: result.threshold === null ? "as it is" : `> ${result.threshold}` }),
      make("td", { textContent: number(result.dice_explained) }),
      make("td", { textContent: number(result.perturbation_ratio) }),
    ),
  );
  const heads = ["Mask", "Dice expl.", "Ratio"].map((text) => make("th", { scope: "col", textContent: text }));
  const facts = [`${number(card.seconds)} s`];
  if (card.dilations !== null) facts.push(`${card.dilations} dilations`);
  if (card.setting !== "default settings") facts.push(card.setting);

  const element = make(
    "article",
    { className: "card", tabIndex: -1 },
    make("div", { className: "picture" }, canvas, ...misure.notShown(card)),
    make("h3", {}, make("span", { className: `dot ${card.method.toLowerCase().replaceAll(/[^a-z]/g, "")}` }), title),
    make("p", { className: "dim", textContent: `${card.dataset}, ${card.model}, sample ${card.sample}` }),
    ...card.marks.map((mark) => make("span", { className: "mark", textContent: `◇ ${mark}` })),
    make("label", { className: "cut" }, slider, live),
    make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...numbers)),
    make("p", { className: "dim", textContent: facts.join(" · ") }),
    make("p", { className: "dim source", textContent: `${card.source} · ${card.group}` }),
    ...misure.creditLine(card),
  );
  element.setAttribute("role", "listitem");
  element.dataset.unit = card.unit;
  slider.addEventListener("input", redraw);
  canvas.addEventListener("click", enlarge);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === element) enlarge();
  });
  const cut = (step) => {
    slider.value = step ?? usual;
    stale = true;
  };
  return { element, draw, cut, spoil: () => { stale = true; } };
};

misure.notShown = (card) =>
  card.image === null
    ? [misure.make("p", { className: "veil", textContent: "Photograph not shown: its licence does not allow it" })]
    : [];

misure.creditLine = (card) => {
  if (!card.credit.length) return [];
  const pieces = card.credit.map(({ text, href }) =>
    href && misure.webLink(href)
      ? misure.make("a", { href, rel: "noreferrer noopener", target: "_blank", textContent: text })
      : text,
  );
  const details = misure.make("details", { className: "credit" }, misure.make("summary", { textContent: "Credit" }));
  details.append(misure.make("p", {}, ...pieces));
  return [details];
};
