"use strict";
(function () {
  const page = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // Wide enough for nothing to collide; the style sheet's print zoom brings them to the width of a page.
  const PRINT_WIDTHS = { summary: 1120 };
  const PRINT_WIDTH = 840;

  function draw(name, theme, width) {
    const place = document.getElementById("plot-" + name);
    const figure = page.figures[name];
    const layout = Object.assign({}, figure.layout, { template: page.templates[theme], autosize: width === undefined });
    if (width !== undefined) {
      layout.width = width;
    }
    Plotly.react(place, figure.data, layout, page.config);
  }

  function drawForScreen() {
    Object.keys(page.figures).forEach(function (name) {
      draw(name, dark.matches ? "dark" : "light");
    });
  }

  function drawForPrint() {
    Object.keys(page.figures).forEach(function (name) {
      draw(name, "light", PRINT_WIDTHS[name] || PRINT_WIDTH);
    });
  }

  let folded = [];
  dark.addEventListener("change", drawForScreen);
  window.addEventListener("beforeprint", function () {
    folded = Array.from(document.querySelectorAll("details:not([open])"));
    folded.forEach(function (part) { part.open = true; });
    drawForPrint();
  });
  window.addEventListener("afterprint", function () {
    folded.forEach(function (part) { part.open = false; });
    drawForScreen();
  });
  drawForScreen();
})();
