"use strict";
/* The plot of Dice explained against ratio, in the page's colours. */
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

  const draw = async () => {
    const plot = misure.read("plots")[Number(choice.value)];
    const marks = plot.marks.map((mark) => misure.make("span", { className: "mark", textContent: `◇ ${mark}` }));
    document.getElementById("plot-marks").replaceChildren(...marks);
    const zeros = plot.zeros ? ` ${plot.zeros} with a ratio of 0 stand at the left edge.` : "";
    note.textContent = `${plot.n} points of ${plot.n_samples} samples, ${plot.label}.${zeros}`;
    const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
    await Plotly.react(area, plot.figure.data, dressed(plot.figure.layout), config);
    area.removeAllListeners("plotly_click");
    area.on("plotly_click", ({ points }) => {
      if (!misure.showUnit(points[0].customdata)) note.textContent = "No maps of this explanation were saved.";
    });
  };

  if (choice) {
    choice.addEventListener("change", draw);
    choice.form.addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("misure-theme", draw);
    draw();
  }
}
