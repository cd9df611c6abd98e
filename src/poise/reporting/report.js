"use strict";

for (const data of document.querySelectorAll("script[data-for]")) {
  const figure = JSON.parse(data.textContent);
  Plotly.newPlot(data.dataset.for, figure.data, figure.layout, figure.config);
}

// A page of paper is narrower than a window, and charts do not notice by themselves.
const charts = document.querySelectorAll(".plot");
const paper = window.matchMedia("print");
const fit = () => charts.forEach((chart) => Plotly.relayout(chart, { width: chart.clientWidth, height: chart.clientHeight }));
const release = () => charts.forEach((chart) => Plotly.relayout(chart, { autosize: true, width: null, height: null }));
paper.addEventListener("change", (event) => (event.matches ? fit() : release()));
