"use strict";
/* "/" goes to the nearest filter; the bar shows which section is read. */
{
  const typing = (element) => element.matches("input:not([type=range]):not([type=checkbox]), textarea, select");

  const nearest = (fields) => {
    const middle = innerHeight / 2;
    const far = (field) => {
      const box = field.closest("section").getBoundingClientRect();
      return box.top > middle ? box.top - middle : Math.max(0, middle - box.bottom);
    };
    return fields.reduce((best, field) => (far(field) < far(best) ? field : best));
  };

  document.addEventListener("keydown", (event) => {
    const busy = typing(event.target) || document.querySelector("dialog[open]");
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || busy) return;
    event.preventDefault();
    nearest([...document.querySelectorAll("input[data-find]")]).focus();
  });

  const links = new Map([...document.querySelectorAll(".bar nav a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((found) => found.isIntersecting)) {
        for (const [id, link] of links) {
          if (id === entry.target.id) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        }
      }
    },
    { rootMargin: "-45% 0px -50% 0px" },
  );
  for (const section of document.querySelectorAll("main > section")) if (links.has(section.id)) watcher.observe(section);
}
