"use strict";
/* The verdict board: filtered by verdict and words, sorted by its headings. */
{
  const body = document.querySelector("#board tbody");
  const rows = [...body.rows].map((row) => ({ row, text: row.textContent.toLowerCase(), ...row.dataset }));
  const tools = document.querySelector("[data-board-tools]");
  const find = tools.querySelector("[data-find]");
  const boxes = [...tools.querySelectorAll("input[name=verdict]")];
  const buttons = [...document.querySelectorAll("#board [data-sort]")];

  const filter = () => {
    const words = find.value.trim().toLowerCase().split(/\s+/);
    const verdicts = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    let shown = 0;
    for (const { row, text, verdict } of rows) {
      row.hidden = !(verdicts.has(verdict) && words.every((word) => text.includes(word)));
      shown += row.hidden ? 0 : 1;
    }
    tools.querySelector("[data-board-count]").value = `${shown} of ${rows.length} claims`;
    document.querySelector("[data-board-none]").hidden = shown > 0;
  };

  const compare = (first, second) => {
    const numbers = [Number(first), Number(second)];
    if (numbers.every((number) => !Number.isNaN(number))) return numbers[0] - numbers[1];
    return Number.isNaN(numbers[0]) && Number.isNaN(numbers[1])
      ? first.localeCompare(second)
      : Number.isNaN(numbers[0]) - Number.isNaN(numbers[1]);
  };

  const sort = (button) => {
    const heading = button.closest("th");
    const falling = heading.getAttribute("aria-sort") === "ascending";
    for (const other of buttons) other.closest("th").setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const name = button.dataset.sort;
    const sign = falling ? -1 : 1;
    rows.sort((a, b) => sign * compare(a[name], b[name]) || a.order - b.order);
    body.append(...rows.map(({ row }) => row));
  };

  find.addEventListener("input", filter);
  for (const box of boxes) box.addEventListener("change", filter);
  for (const button of buttons) button.addEventListener("click", () => sort(button));
  tools.addEventListener("submit", (event) => event.preventDefault());
  filter();
}
