"use strict";

for (const data of document.querySelectorAll("script[data-for]")) {
  const figure = JSON.parse(data.textContent);
  Plotly.newPlot(data.dataset.for, figure.data, figure.layout, figure.config);
  switches(document.getElementById(data.dataset.for), figure.data);
}

// Each entry of a chart's legend becomes a button that hides its line, together with its band, and shows it again.
function switches(plot, traces) {
  plot.closest("figure").querySelectorAll(".legend li").forEach((entry, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(...entry.childNodes);
    entry.append(button);
    const members = traces.flatMap((trace, at) => (trace.legendgroup === String(index) ? [at] : []));
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      Plotly.restyle(plot, { visible: shown }, members);
    });
  });
}

// A page of paper is narrower than a window, and charts do not notice by themselves.
const charts = document.querySelectorAll(".plot");
const paper = window.matchMedia("print");
const fit = () => charts.forEach((chart) => Plotly.relayout(chart, { width: chart.clientWidth, height: chart.clientHeight }));
const release = () => charts.forEach((chart) => Plotly.relayout(chart, { autosize: true, width: null, height: null }));
paper.addEventListener("change", (event) => (event.matches ? fit() : release()));
