// Look inside: tokens coloured by probability; for the selected one its alternatives, the prediction of each layer (logit lens)
// and the attention of every head. All numbers are in the value; the server is not asked again. A layer of `attending` is
// addressed by its place there: a short convolution has no attention.
const root = element.querySelector(".look");
const percent = (p) => (p >= 0.9995 ? "100%" : p >= 0.0005 ? `${(100 * p).toFixed(1)}%` : "<.1%");

function bar(name, p, note) {
  const row = make("div", "bar"), track = make("span", "track"), fill = make("span", "fill");
  fill.style.width = `${(100 * p).toFixed(1)}%`;
  track.append(fill);
  row.append(make("code", "", name), track, make("span", "number", percent(p)));
  if (note) row.title = note;
  return row;
}

function draw() {
  const look = props.value;
  if (!look?.rows) {
    root.replaceChildren(make("div", "greeting", look?.greeting || ""));
    return;
  }
  const { rows, own, layers, attending, heads } = look, count = rows.length;
  const bytes = Uint8Array.from(atob(look.attention), (c) => c.charCodeAt(0));
  const weight = (layer, head, place, at) => bytes[((layer * heads + head) * count + place) * count + at] / 255;
  let token = own, layer = attending.length - 1, head = 0;

  const text = labelled(make("div", "tokens"), "listbox", "Tokens"), detail = make("div", "detail"), maps = make("div", "maps");
  const spans = rows.map((row, n) => {
    const name = (n < own ? "token prompt" : "token own") + (row.special ? " special" : "");
    const span = make("span", name, row.token.replaceAll("↵", "↵\n").replaceAll("␣", " "));
    span.setAttribute("role", "option");
    span.title = row.probability === null ? "the first token" :
      [`${percent(row.probability)}; likeliest here:`, ...row.alternatives.map(([name, p]) => `${name} ${percent(p)}`)].join("\n");
    if (n >= own) span.style.setProperty("--p", row.probability);
    span.addEventListener("click", () => choose(n));
    text.append(span);
    return span;
  });
  text.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: token - 1, ArrowUp: token - 1, ArrowRight: token + 1, ArrowDown: token + 1, Home: 0, End: count - 1 }[event.key];
    if (to === undefined || to < 0 || to >= count) return;
    event.preventDefault();
    choose(to);
    spans[to].focus();
  });

  const big = make("canvas", "big"), readout = make("div", "readout"), grid = make("div", "grid");
  const canvases = [];

  function paint(canvas, l, h) {
    canvas.width = canvas.height = count;
    const context = canvas.getContext("2d"), image = context.createImageData(count, count);
    const [r, g, b] = getComputedStyle(root).getPropertyValue("--ink").split(",").map(Number);
    for (let y = 0; y < count; y++)
      for (let x = 0; x <= y; x++) {
        const at = 4 * (y * count + x);
        image.data.set([r, g, b, Math.round(255 * Math.sqrt(weight(l, h, y, x)))], at); // square root, since most weights are small
      }
    context.putImageData(image, 0, 0);
  }

  function choose(n) {
    token = n;
    spans.forEach((span, at) => {
      span.setAttribute("aria-selected", at === n);
      span.tabIndex = at === n ? 0 : -1; // one stop of the Tab key; the arrows go on from it
    });
    const row = rows[n];
    detail.replaceChildren();
    const head_ = make("div", "title");
    head_.append(make("code", "chosen", row.token));
    head_.append(make("span", "", row.probability === null ? "the first token shown" : ` had a probability of ${percent(row.probability)}`));
    detail.append(head_);
    if (row.probability !== null) {
      const columns = make("div", "columns"), others = make("div"), lens = make("div");
      others.append(make("h3", "", "Likeliest here"));
      for (const [name, p] of row.alternatives) {
        const line = bar(name, p);
        if (name === row.token) line.classList.add("real");
        others.append(line);
      }
      lens.append(make("h3", "", layers ? "Layer by layer" : "From the table"));
      row.layers.forEach(([name, top, real], l) => {
        const line = bar(name, real, `likeliest here: ${name}, ${percent(top)}; ${row.token}: ${percent(real)}`);
        line.prepend(make("span", "which", layers ? (l ? `layer ${l}` : "embedding") : "table"));
        if (name === row.token) line.classList.add("real");
        lens.append(line);
      });
      lens.append(make("p", "note", "The likeliest token if the model ended at this layer; the bar is the probability of the token that was sampled."));
      columns.append(others, lens);
      detail.append(columns);
    }
    highlight();
  }

  // Underline each earlier token by its attention weight at the position that predicted the selected token.
  function highlight() {
    spans.forEach((span, at) => {
      const seen = attending.length && token > 0 && at < token ? weight(layer, head, token - 1, at) : 0;
      span.style.setProperty("--seen", Math.sqrt(seen).toFixed(3));
    });
  }

  function select(l, h) {
    [layer, head] = [l, h];
    canvases.forEach(({ button, l, h }) => button.setAttribute("aria-pressed", l === layer && h === head));
    paint(big, l, h);
    readout.textContent = `Layer ${attending[l] + 1}, head ${h + 1}. Rows: positions; columns: the tokens they attend to.`;
    labelled(big, "img", `Attention of layer ${attending[l] + 1}, head ${h + 1}`);
    highlight();
  }

  // The maps of a layer's heads, or a sentence if it has none.
  function addLayer(number) {
    const l = attending.indexOf(number);
    if (l < 0) {
      grid.append(make("p", "note", `Layer ${number + 1} is a short convolution. It has no attention heads.`));
      return;
    }
    for (let h = 0; h < heads; h++) {
      const canvas = make("canvas"), map = button("map", undefined, `layer ${number + 1}, head ${h + 1}`, () => select(l, h));
      map.append(canvas);
      grid.append(map);
      canvases.push({ button: map, canvas, l, h });
    }
  }

  big.addEventListener("pointermove", (event) => {
    const box = big.getBoundingClientRect();
    const x = Math.floor((count * (event.clientX - box.left)) / box.width), y = Math.floor((count * (event.clientY - box.top)) / box.height);
    if (x < 0 || y < 0 || x > y || y >= count) return;
    readout.textContent = `${rows[y].token} → ${rows[x].token}: ${percent(weight(layer, head, y, x))}`;
  });
  big.addEventListener("click", (event) => {
    const box = big.getBoundingClientRect();
    const y = Math.floor((count * (event.clientY - box.top)) / box.height);
    if (y + 1 < count) choose(y + 1);
  });

  root.replaceChildren();
  if (look.cut) root.append(make("p", "note", `Of ${look.cut + count} tokens the last ${count} are shown.`));
  root.append(make("h2", "", "Tokens by probability"));
  root.append(make("p", "note", "Select a token with a click, or with the arrow keys."), text, detail);
  if (attending.length) {
    grid.style.setProperty("--heads", heads);
    for (let number = 0; number < layers; number++) addLayer(number);
    const side = make("div", "side");
    side.append(big, readout);
    maps.append(grid, side);
    root.append(make("h2", "", "Attention of each layer (down) and head (across)"));
    root.append(make("p", "note", "Select a map, then a token above: the tokens it attends to are underlined."), maps);
    canvases.forEach(({ canvas, l, h }) => paint(canvas, l, h));
    // start with the head whose attention is sharpest where the answer begins
    const place = Math.max(0, own - 1);
    const peak = ({ l, h }) => Math.max(...Array.from({ length: place + 1 }, (_, at) => weight(l, h, place, at)));
    const sharpest = canvases.reduce((best, each) => (peak(each) > peak(best) ? each : best));
    select(sharpest.l, sharpest.h);
  } else root.append(make("p", "note", "This model has no attention heads."));
  choose(Math.min(token, count - 1));
}
watch("value", draw);
draw();
