(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const swap = JSON.parse(document.getElementById("dark").textContent);
  const draw = () => {
    for (const block of document.querySelectorAll("script[data-chart]")) {
      let text = block.textContent;
      if (dark.matches) for (const [light, other] of swap) text = text.replaceAll(light, other);
      const figure = JSON.parse(text);
      Plotly.react(block.dataset.chart, figure.data, figure.layout,
        { displayModeBar: false, responsive: true });
    }
  };
  draw();
  document.addEventListener("charts", draw);
  dark.addEventListener("change", draw);
})();
