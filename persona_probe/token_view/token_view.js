(function () {
  "use strict";
  var ID = "__ID__";
  var COLOURS = { up: "__UP__", down: "__DOWN__" };
  var DARKEST = __DARKEST__;

  function start(root) {
    if (root.dataset.ppReady) return;
    root.dataset.ppReady = "yes";
    var data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    var tokens = Array.prototype.slice.call(root.querySelectorAll(".pp-text span"));
    var series = data.series, which = data.shown[0], at = data.shown[1], here = 0, reading = null;

    function make(tag, parent, properties) {
      var element = document.createElement(tag);
      Object.keys(properties || {}).forEach(function (key) { element[key] = properties[key]; });
      parent.appendChild(element);
      return element;
    }

    var controls = root.querySelector(".pp-controls");
    var menuLabel = make("label", controls, { textContent: "series " });
    var menu = make("select", menuLabel);
    series.forEach(function (one, number) { make("option", menu, { textContent: one.name, value: String(number) }); });
    menuLabel.hidden = series.length < 2;
    var sliderLabel = make("label", controls, { textContent: "layer " });
    var slider = make("input", sliderLabel, { type: "range", min: "0", step: "1" });
    var said = make("span", sliderLabel);

    function layer() { return series[which].layers[at]; }
    function number(value) {
      var shown = value.toFixed(layer().digits);
      if (Number(shown) === 0) shown = (0).toFixed(layer().digits);
      return (Number(shown) < 0 ? "" : "+") + shown;
    }
    function told(place) {
      var now = layer(), value = now.values[place], text = tokens[place].dataset.about + "\n";
      if (value === null) text += "not read";
      else {
        text += number(value) + " " + series[which].unit;
        if (now.sd !== null) {
          var off = ((value - now.centre) / now.sd).toFixed(1);
          text += ", " + (Number(off) < 0 ? "" : "+") + (Number(off) === 0 ? "0.0" : off) + " SD from the reference";
        }
      }
      if (now.sinks.indexOf(place) >= 0) text += "; an attention sink";
      return text + "\nlayer " + now.layer;
    }
    function colour(share) {
      var rgb = share > 0 ? COLOURS.up : COLOURS.down, size = Math.min(Math.abs(share), 1);
      return { back: "rgba(" + rgb + ", " + (DARKEST * size).toFixed(2) + ")",
               edge: "inset 0 " + (share > 0 ? "-" : "") + "2px 0 rgba(" + rgb + ", " + size.toFixed(2) + ")" };
    }
    function draw() {
      var now = layer();
      tokens.forEach(function (token, place) {
        var value = now.values[place];
        var look = value === null ? { back: "", edge: "" } : colour((value - now.centre) / now.scale);
        token.style.backgroundColor = look.back;
        token.style.boxShadow = look.edge;
        token.title = told(place);
      });
      root.querySelector(".pp-shown").textContent = series[which].name + ", " + now.words;
      slider.setAttribute("aria-valuetext", now.words);
      said.textContent = now.words.replace(/^layer /, "");
      var ends = root.querySelectorAll(".pp-ends span");
      [now.centre - now.scale, now.centre, now.centre + now.scale].forEach(function (value, place) {
        ends[place].textContent = number(value);
      });
      root.querySelector(".pp-unit").textContent = now.note;
      var marks = root.querySelectorAll(".pp-bar i"), reach = now.random === null ? 2 : now.random / now.scale;
      [-reach, reach].forEach(function (place, one) {
        marks[one].hidden = Math.abs(place) > 1;
        marks[one].style.left = 50 + 50 * place + "%";
      });
      if (reading !== null) read(reading);
    }
    function choose(number, wanted) {
      which = number;
      var layers = series[which].layers.map(function (one) { return one.layer; });
      at = Math.max(0, layers.indexOf(wanted));
      slider.max = String(layers.length - 1);
      slider.value = String(at);
      slider.disabled = layers.length < 2;
      menu.value = String(which);
      draw();
    }
    function read(place) {
      reading = place;
      root.querySelector(".pp-readout").textContent = tokens[place].title.replace(/\n/g, ": ").replace(/: (layer \d+)$/, ", $1");
    }
    function focus(place) {
      if (place < 0 || place >= tokens.length) return;
      tokens[here].tabIndex = -1;
      here = place;
      tokens[here].tabIndex = 0;
      tokens[here].focus();
    }

    menu.addEventListener("change", function () { choose(Number(menu.value), layer().layer); });
    slider.addEventListener("input", function () { at = Number(slider.value); draw(); });
    tokens.forEach(function (token, place) {
      token.tabIndex = place ? -1 : 0;
      token.addEventListener("mouseenter", function () { read(place); });
      token.addEventListener("focus", function () { here = place; read(place); });
      token.addEventListener("keydown", function (event) {
        var to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tokens.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        focus(to);
      });
    });
    choose(which, layer().layer);
  }

  // The same output may be shown twice in a notebook.
  document.querySelectorAll("[data-pp-tokens='" + ID + "']").forEach(start);
})();
