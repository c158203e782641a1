"use strict";
/* One picture at a time, as large as the window, in a modal dialog (Escape closes it, the page behind is inert). */
{
  const dialog = document.getElementById("lightbox");
  const stage = dialog.querySelector(".lightbox-stage");
  const image = dialog.querySelector("img");
  const title = document.getElementById("lightbox-title");
  const shownScale = document.getElementById("lightbox-scale");
  const view = misure.zoomable(stage, image, (scale) => {
    shownScale.value = `${Math.round(scale * 100)} %`;
  });
  const step = 60;
  const keys = {
    "+": () => view.zoom(1.5),
    "=": () => view.zoom(1.5),
    "-": () => view.zoom(1 / 1.5),
    0: () => view.fit(),
    ArrowLeft: () => view.move(step, 0),
    ArrowRight: () => view.move(-step, 0),
    ArrowUp: () => view.move(0, step),
    ArrowDown: () => view.move(0, -step),
  };
  const actions = { in: keys["+"], out: keys["-"], fit: keys[0], close: () => dialog.close() };
  let opener = null;

  misure.enlarge = (source, text, from, pixelated = false) => {
    opener = from;
    image.src = source;
    image.alt = text;
    image.classList.toggle("sharp", pixelated);
    title.textContent = text;
    dialog.showModal();
    view.fit();
    stage.focus();
  };

  /* Tab goes round inside the dialog. */
  const goRound = (event) => {
    const stops = [...dialog.querySelectorAll("button, [tabindex='0']")];
    const place = stops.indexOf(document.activeElement) + (event.shiftKey ? -1 : 1);
    stops[(place + stops.length) % stops.length].focus();
  };

  dialog.addEventListener("keydown", (event) => {
    const action = event.key === "Tab" ? () => goRound(event) : keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  for (const button of dialog.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", actions[button.dataset.zoom]);
  }
  dialog.addEventListener("close", () => {
    image.removeAttribute("src");
    opener?.focus();
  });
  for (const button of document.querySelectorAll("[data-lightbox]")) {
    const picture = button.querySelector("img");
    button.addEventListener("click", () => misure.enlarge(picture.src, picture.alt, button));
  }
}
