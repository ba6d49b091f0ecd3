// The conversation, and the buttons of each message. The value comes from PlaygroundConversation.view.
const list = element.querySelector(".talk");
labelled(list, "region", "Conversation");
list.tabIndex = 0; // it scrolls
const shown = []; // JSON and node of each message, so that an open form stays while another answer is generated

function hand() { // a drawing, since not every machine has a font with this symbol
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), path = document.createElementNS(svg.namespaceURI, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  path.setAttribute("d", "M7.5 11v9H4v-9zm0 0 4-7.5c1.6 0 2.6 1.1 2.3 2.8L13.2 10h5.6c1.3 0 2.1 1.1 1.9 2.3l-1.3 6.1c-.2 1-1 1.6-2 1.6H7.5");
  svg.append(path);
  return svg;
}

// A form under a message: a text box, a button that sends it, and Cancel. `key` is that of the button that opened it.
function form({ text, label, name, key }, send, cancel) {
  const box = make("div", "said"), area = make("textarea");
  area.value = text;
  area.placeholder = label;
  area.rows = Math.min(8, Math.max(2, text.split("\n").length + 1));
  area.setAttribute("aria-label", label);
  const row = make("div", "row"), close = () => { (cancel || (() => box.remove()))(); focusOn(list, key); };
  row.append(
    button("save", name, name, () => { box.dataset.sent = "true"; send(area.value); }, key),
    button("quiet", "Cancel", "Cancel", close, key),
  );
  box.append(area, row);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) row.firstChild.click();
  });
  return box;
}

const focusOn = (node, key) => node.querySelector(`[data-key="${key}"]`)?.focus();

function asked(message, place) {
  const node = labelled(make("div", "message user"), "group", "You"), bubble = fill(make("div", "bubble"), message.text);
  node.append(bubble);
  if (!message.busy) {
    const tools = make("div", "tools"), key = `edit-${place}`;
    tools.append(button("tool edit", "Edit", "Edit this message and have it answered again", () => {
      const fields = { text: message.text, label: "Your message", name: "Send", key };
      const area = form(fields, (text) => trigger("revise", { place, text }), () => {
        area.replaceWith(bubble);
        tools.hidden = false;
      });
      bubble.replaceWith(area);
      tools.hidden = true;
      area.querySelector("textarea").focus();
    }, key));
    node.append(tools);
  }
  return node;
}

function thumbs(judged, judge, place) {
  return [[1, "up", "A good answer"], [-1, "down", "A bad answer"]].map(([value, name, label]) => {
    const pressed = judged.thumb === value;
    const thumb = button(`tool thumb ${name}`, undefined, label, () => judge("thumb", { value: pressed ? 0 : value }), `${name}-${place}`);
    thumb.append(hand());
    thumb.setAttribute("aria-pressed", pressed);
    if (pressed) thumb.title = `${label}. Press again to take it back`;
    return thumb;
  });
}

function rating(judged, judge, place) {
  const stars = labelled(make("span", "stars"), "group", "From 1 to 5"), given = judged.rating || 0;
  for (let value = 1; value <= 5; value++) {
    const comment = judged.comment || "";
    const rate = () => judge("rating", value === given ? { value: 0 } : { value, comment });
    const star = button("tool star", value <= given ? "★" : "☆", `${value} of 5`, rate, `star${value}-${place}`);
    star.setAttribute("aria-pressed", value === given);
    if (value === given) star.title = `${value} of 5. Press again to take it back`;
    stars.append(star);
  }
  return stars;
}

// A saved text of the visitor under the answer: a correction, or the reason for the stars.
function note(name, title, text, ...tools) {
  const box = make("div", `given ${name}`), row = make("div", "tools");
  row.append(...tools);
  box.append(make("div", "title", title), fill(make("div", "text"), text), row);
  return box;
}

function judging(node, message, place) {
  const { judged } = message, judge = (kind, more) => trigger("judge", { place, kind, ...more });
  const open = (fields, send) => {
    node.querySelectorAll(":scope > .said").forEach((other) => other.remove());
    node.append(form(fields, send));
    node.lastChild.scrollIntoView({ block: "nearest" });
    node.lastChild.querySelector("textarea").focus();
  };
  const opener = (name, text, label, fields, send) =>
    button(`tool ${name}`, text, label, () => open({ name: "Save", key: `${name}-${place}`, ...fields }, send), `${name}-${place}`);
  const wanted = { text: judged.correction || message.text, label: "It should have said…" };
  const correct = (text) => opener("correct", text, "Write what it should have said", wanted, (correction) => judge("correction", { correction }));
  const why = (text) => opener("why", text, "Say why you gave these stars", { text: judged.comment || "", label: "Why? (optional)" },
    (comment) => judge("rating", { value: judged.rating, comment }));
  const tools = [...thumbs(judged, judge, place), rating(judged, judge, place)];
  const notes = [];
  if (judged.comment) notes.push(note("reason", "Your reason for the stars", judged.comment, why("Edit")));
  else if (judged.rating) tools.push(why("Why?"));
  if (judged.correction) {
    const remove = button("tool remove", "Remove", "Take this correction back", () => judge("correction", { value: 0 }), `remove-${place}`);
    notes.push(note("correction", "It should have said", judged.correction, correct("Edit"), remove));
  } else tools.push(correct("It should have said…"));
  return { tools, notes };
}

function answered(message, place) {
  const name = message.model ? `Answer of ${message.model}` : "Answer";
  const node = labelled(make("div", "message assistant"), "group", name);
  if (message.model) node.append(make("div", "model", message.model));
  node.append(fill(make("div", "bubble"), message.text, message.state === "writing"));
  if (message.state === "writing") return node;
  if (message.remark) node.append(make("div", message.state === "error" ? "remark failed" : "remark", message.remark));
  const { tools, notes } = message.judgeable ? judging(node, message, place) : { tools: [], notes: [] };
  if (message.lookable) tools.push(button("tool look", "Look inside", "Show probabilities and attention", () => trigger("look", { place })));
  if (message.last) tools.push(button("tool again", "Again", "Answer again", () => trigger("again", { place })));
  const row = make("div", "tools");
  row.append(...tools);
  node.append(row, ...notes);
  if (message.saved) node.append(verdict(message));
  return node;
}

function welcome({ greeting = "", note = "", examples = [], earlier }) {
  const node = make("div", "greeting");
  node.append(make("p", "hello", greeting));
  if (examples.length) {
    const row = labelled(make("div", "examples"), "group", "Questions to ask");
    row.append(...examples.map((text) => button("example", text, "Ask this", () => trigger("example", { text }))));
    node.append(row);
  }
  if (earlier) node.append(button("quiet back", "Back to the last conversation", "Undo New", () => trigger("back", {})));
  if (note) node.append(make("p", "note", note));
  return node;
}

// Put a newer drawing of a message in place of an older one: with its open form, unless that was saved, and with its focus.
function replace(old, node, message) {
  const open = old.node.querySelector(":scope > .said"), focused = document.activeElement;
  const same = message.role === "assistant" && message.text === old.message.text;
  const inside = old.node.contains(focused), key = inside && focused.dataset.key;
  if (open && same && (message.refused || !open.dataset.sent)) node.append(open);
  if (open) delete open.dataset.sent;
  old.node.replaceWith(node);
  if (inside && node.contains(focused)) focused.focus();
  else if (key) focusOn(node, key);
}

const KEY = "understudy-conversation"; // of the id by which the server finds this tab's conversation after a reload

function remember({ id, messages = [], earlier }) {
  if (messages.length || earlier) sessionStorage.setItem(KEY, id);
  else sessionStorage.removeItem(KEY);
}

function drawMessage(message, place) {
  const json = JSON.stringify(message), old = shown[place];
  if (old?.json === json) return;
  if (old?.message.state === "writing" && message.state === "writing") { // the common case: only more text
    fill(old.node.querySelector(".bubble"), message.text, true);
    [old.json, old.message] = [json, message];
    return;
  }
  const node = message.role === "user" ? asked(message, place) : answered(message, place);
  if (old) replace(old, node, message);
  else list.append(node);
  shown[place] = { json, node, message };
  if (message.saved && message.saved !== old?.message.saved) announce(message.saved);
  else if (old?.message.state === "writing") announce([message.text, message.remark].join("\n"));
}

let newest = 0;

function draw() {
  const view = props.value || {}, { messages = [], number = 0 } = view;
  if (number < newest) return; // an event's last view, sent again after a newer one
  newest = number;
  remember(view);
  const below = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  list.querySelector(":scope > .problem")?.remove();
  if (!messages.length) {
    shown.length = 0;
    list.replaceChildren(welcome(view));
  } else {
    if (!shown.length) list.replaceChildren();
    messages.forEach(drawMessage);
    while (shown.length > messages.length) shown.pop().node.remove();
  }
  if (view.problem) list.append(problem(view.problem));
  if (view.problem || (messages.length && below)) list.scrollTop = list.scrollHeight;
}
const kept = sessionStorage.getItem(KEY);
nameButtons("say");
watch("value", draw);
draw();
if (kept) trigger("restore", { id: kept });
