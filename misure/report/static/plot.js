"use strict";
/* The plot of Dice explained against ratio, in the page's colours. Plotly is run when the plot comes near: it is large. */
{
  const choice = document.getElementById("plot-choice");
  const area = document.getElementById("plot-area");
  const note = document.getElementById("plot-note");

  const dressed = (layout) => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: colour("--line"), linecolor: colour("--dim"), zeroline: false, ticks: "outside" };
    return {
      ...layout,
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--ink"), family: style.fontFamily, size: 14 },
      hoverlabel: { bgcolor: colour("--card"), font: { color: colour("--ink") }, align: "left" },
      xaxis: { ...layout.xaxis, ...axis, minexponent: 4, dtick: 1, tickformat: "~g" },
      yaxis: { ...layout.yaxis, ...axis },
    };
  };

  const load = () => {
    const { textContent } = document.getElementById("plotly");
    document.head.append(misure.make("script", { textContent }));
  };

  const draw = async () => {
    if (!window.Plotly) load();
    const plot = misure.read("plots")[Number(choice.value)];
    const marks = plot.marks.map((mark) => misure.make("span", { className: "mark", textContent: `◇ ${mark}` }));
    document.getElementById("plot-marks").replaceChildren(...marks);
    const zeros = plot.zeros ? ` ${plot.zeros} with a ratio of 0 stand at the left edge.` : "";
    const shown = plot.n_shown < plot.n ? `${plot.n_shown} of ` : "";
    note.textContent = `${shown}${plot.n} points of ${plot.n_samples} samples, ${plot.label}.${zeros}`;
    const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
    await Plotly.react(area, plot.figure.data, dressed(plot.figure.layout), config);
    area.removeAllListeners("plotly_click");
    area.on("plotly_click", ({ points }) => {
      if (!misure.showUnit(points[0].customdata)) note.textContent = "The maps of this explanation are not on this page.";
    });
  };

  if (choice) {
    choice.addEventListener("change", draw);
    choice.form.addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("misure-theme", () => window.Plotly && draw());
    const watcher = new IntersectionObserver(
      (changes) => {
        if (!changes.some(({ isIntersecting }) => isIntersecting)) return;
        watcher.disconnect();
        draw();
      },
      { rootMargin: "800px" },
    );
    watcher.observe(area);
  }
}
