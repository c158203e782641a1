"use strict";
/* Light or dark: the system's choice until the reader makes another. */
{
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = misure.remembered("theme");
  let chosen = ["dark", "light"].includes(kept) ? kept : null;

  misure.isDark = () => (chosen ?? (system.matches ? "dark" : "light")) === "dark";

  const apply = () => {
    document.documentElement.dataset.theme = misure.isDark() ? "dark" : "light";
    button.setAttribute("aria-pressed", String(misure.isDark()));
    document.dispatchEvent(new CustomEvent("misure-theme"));
  };

  button.addEventListener("click", () => {
    chosen = misure.isDark() ? "light" : "dark";
    misure.remember("theme", chosen);
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}
