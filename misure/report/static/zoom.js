"use strict";
/* Zooms and moves an element inside its stage by wheel, pinch, dragging and keys. */
misure.zoomable = (stage, content, changed) => {
  const most = 16;
  const pointers = new Map();
  let scale = 1;
  let x = 0;
  let y = 0;

  const show = () => {
    const room = { x: ((scale - 1) * stage.clientWidth) / 2, y: ((scale - 1) * stage.clientHeight) / 2 };
    x = Math.min(room.x, Math.max(-room.x, x));
    y = Math.min(room.y, Math.max(-room.y, y));
    content.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    content.classList.toggle("pixels", scale > 3);
    changed(scale);
  };

  /* Keep what lies under a point of the stage where it is. */
  const zoom = (factor, at = null) => {
    const box = stage.getBoundingClientRect();
    const point = at ?? { x: box.left + box.width / 2, y: box.top + box.height / 2 };
    const from = { x: point.x - box.left - box.width / 2, y: point.y - box.top - box.height / 2 };
    const next = Math.min(most, Math.max(1, scale * factor));
    x = from.x - ((from.x - x) * next) / scale;
    y = from.y - ((from.y - y) * next) / scale;
    scale = next;
    show();
  };

  const move = (dx, dy) => {
    x += dx;
    y += dy;
    show();
  };

  const fit = () => {
    [scale, x, y] = [1, 0, 0];
    pointers.clear();
    show();
  };

  const spread = () => {
    const [a, b] = [...pointers.values()];
    return { size: Math.hypot(a.x - b.x, a.y - b.y), middle: { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 } };
  };

  const dragged = (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const old = pointers.size === 2 ? spread() : null;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (old) {
      const now = spread();
      zoom(now.size / Math.max(1, old.size), now.middle);
      move(now.middle.x - old.middle.x, now.middle.y - old.middle.y);
    } else {
      move(event.clientX - before.x, event.clientY - before.y);
    }
  };

  const released = (event) => pointers.delete(event.pointerId);
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), { x: event.clientX, y: event.clientY });
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  stage.addEventListener("pointermove", dragged);
  stage.addEventListener("pointerup", released);
  stage.addEventListener("pointercancel", released);
  stage.addEventListener("dblclick", (event) => (scale > 1 ? fit() : zoom(3, { x: event.clientX, y: event.clientY })));
  return { zoom, move, fit };
};
