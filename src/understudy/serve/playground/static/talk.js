// The conversation, and the buttons of each message. Texts of people and models are only set as text, never as HTML.
// `element`, `props`, `trigger` and `watch` are Gradio's; the value comes from PlaygroundConversation.view.
const list = element.querySelector(".talk");
const shown = []; // JSON and node of each message, so that an open form stays while another answer is generated

const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};
const button = (name, text, label, act) => {
  const node = make("button", name, text);
  node.type = "button";
  node.title = label;
  if (!/\w/.test(text || "")) node.setAttribute("aria-label", label); // else its text is its name, and the label a hint
  node.addEventListener("click", act);
  return node;
};

function hand() { // a drawing, since not every machine has a font with this symbol
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), path = document.createElementNS(svg.namespaceURI, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  path.setAttribute("d", "M7.5 11v9H4v-9zm0 0 4-7.5c1.6 0 2.6 1.1 2.3 2.8L13.2 10h5.6c1.3 0 2.1 1.1 1.9 2.3l-1.3 6.1c-.2 1-1 1.6-2 1.6H7.5");
  svg.append(path);
  return svg;
}

// A form under a message: a text box, Save and Cancel.
function form(text, placeholder, save, done) {
  const box = make("div", "said"), area = make("textarea");
  area.value = text;
  area.placeholder = placeholder;
  area.rows = Math.min(8, Math.max(2, text.split("\n").length + 1));
  area.setAttribute("aria-label", placeholder);
  const row = make("div", "row");
  row.append(button("save", "Save", "Save", () => save(area.value)), button("quiet", "Cancel", "Cancel", done));
  box.append(area, row);
  return box;
}

function asked(message, place) {
  const node = make("div", "message user"), bubble = make("div", "bubble", message.text);
  node.append(bubble);
  if (!message.busy) {
    const tools = make("div", "tools");
    tools.append(button("tool edit", "Edit", "Edit this message and have it answered again", () => {
      const area = form(message.text, "Your message", (text) => trigger("revise", { place, text }), () => {
        area.replaceWith(bubble);
        tools.hidden = false;
      });
      area.querySelector(".save").textContent = "Send";
      bubble.replaceWith(area);
      tools.hidden = true;
      area.querySelector("textarea").focus();
    }));
    node.append(tools);
  }
  return node;
}

function answered(message, place) {
  const node = make("div", "message assistant"), bubble = make("div", "bubble", message.text);
  if (message.model) node.append(make("div", "model", message.model));
  node.append(bubble);
  if (message.state === "writing") {
    bubble.append(make("span", "cursor"));
    return node;
  }
  if (message.remark) node.append(make("div", "remark", message.remark));
  const tools = make("div", "tools");
  if (message.judgeable) {
    const judge = (kind, more) => trigger("judge", { place, kind, ...more });
    for (const [value, name, label] of [[1, "up", "A good answer"], [-1, "down", "A bad answer"]]) {
      const thumb = button(`tool thumb ${name}`, undefined, label, () => judge("thumb", { value }));
      thumb.append(hand());
      thumb.setAttribute("aria-pressed", message.judged.thumb === value);
      tools.append(thumb);
    }
    const stars = make("span", "stars");
    stars.setAttribute("role", "group");
    stars.setAttribute("aria-label", "From 1 to 5");
    let comment = null;
    for (let value = 1; value <= 5; value++) {
      const star = button("tool star", value <= (message.judged.rating || 0) ? "★" : "☆", `${value} of 5`, () => {
        [...stars.children].forEach((other, n) => (other.textContent = n < value ? "★" : "☆"));
        comment?.remove();
        const typed = message.judged.comment || "";
        comment = form(typed, "Why? (optional)", (text) => judge("rating", { value, comment: text }), () => comment.remove());
        node.append(comment);
        comment.scrollIntoView({ block: "nearest" });
      });
      stars.append(star);
    }
    let correction = null;
    tools.append(stars, button("tool correct", "It should have said…", "Write what it should have said", () => {
      correction?.remove();
      const start = message.judged.correction || message.text;
      correction = form(start, "It should have said…", (text) => judge("correction", { correction: text }), () => correction.remove());
      node.append(correction);
      correction.scrollIntoView({ block: "nearest" });
      correction.querySelector("textarea").focus();
    }));
  }
  if (message.lookable) tools.append(button("tool look", "Look inside", "Show probabilities and attention", () => trigger("look", { place })));
  if (message.last) tools.append(button("tool again", "Again", "Answer again", () => trigger("again", { place })));
  node.append(tools);
  if (message.saved) {
    const saved = make("div", message.refused ? "saved refused" : "saved", message.saved);
    saved.setAttribute("role", "status");
    node.append(saved);
  }
  return node;
}

let newest = 0;

function draw() {
  const { messages = [], greeting = "", number = 0 } = props.value || {};
  if (number < newest) return; // an event's last view, sent again after a newer one
  newest = number;
  const below = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  if (!messages.length) {
    shown.length = 0;
    list.replaceChildren(make("div", "greeting", greeting));
    return;
  }
  if (!shown.length) list.replaceChildren();
  messages.forEach((message, place) => {
    const json = JSON.stringify(message);
    if (shown[place]?.json === json) return;
    const old = shown[place];
    if (old && message.state === "writing" && old.writing) { // the common case: only more text
      old.node.querySelector(".bubble").firstChild.data = message.text;
      old.json = json;
      return;
    }
    const node = message.role === "user" ? asked(message, place) : answered(message, place);
    if (message.state === "writing" && !message.text) node.querySelector(".bubble").prepend(document.createTextNode(""));
    if (old) old.node.replaceWith(node);
    else list.append(node);
    shown[place] = { json, node, writing: message.state === "writing" };
  });
  while (shown.length > messages.length) shown.pop().node.remove();
  if (below) list.scrollTop = list.scrollHeight;
}
watch("value", draw);
draw();
