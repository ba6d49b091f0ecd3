// Put before talk.js, duel.js and look.js, which share its functions. Texts of people and models are only set as text.
// `element`, `props`, `trigger` and `watch` are Gradio's.
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};
const labelled = (node, role, label) => {
  node.setAttribute("role", role);
  node.setAttribute("aria-label", label);
  return node;
};

// A button. `key` finds the same button in a newer drawing, to give it the focus back.
const button = (name, text, label, act, key) => {
  const node = make("button", name, text);
  node.type = "button";
  node.title = label;
  if (key) node.dataset.key = key;
  if (!/\w/.test(text || "")) node.setAttribute("aria-label", label); // else its text is its name, and the label a hint
  node.addEventListener("click", act);
  return node;
};

// Set a text whose ``` blocks have a fixed-width font. Nothing else of Markdown is interpreted. Unchanged parts keep their
// nodes, since a text that grows is set many times a second.
function fill(node, text, writing = false) {
  const parts = text.split(/^```.*(?:\n|$)/m);
  parts.forEach((part, n) => {
    const code = n % 2 === 1, shown = code ? part.replace(/\n$/, "") : part;
    if (!node.children[n]) {
      node.append(make(code ? "pre" : "span"));
      if (code) node.lastChild.tabIndex = 0; // it may scroll
    }
    if (node.children[n].textContent !== shown) node.children[n].textContent = shown;
  });
  while (node.children.length > parts.length) node.lastChild.remove();
  node.classList.toggle("writing", writing);
  return node;
}

// The result of a judgement under an answer or a pair.
const verdict = ({ saved, refused }) => make("div", refused ? "saved refused" : "saved", saved);

const problem = (text) => {
  const node = make("div", "problem", text);
  node.setAttribute("role", "alert");
  return node;
};

// Name the buttons of a text box, which Gradio draws without a name and replaces during an answer.
function nameButtons(id) {
  const box = document.getElementById(id);
  if (!box) { // it is drawn a moment later
    requestAnimationFrame(() => nameButtons(id));
    return;
  }
  const name = () => {
    for (const [kind, label] of [["submit", "Send"], ["stop", "Stop"]])
      box.querySelectorAll(`.${kind}-button`).forEach((node) => { node.ariaLabel = node.title = label; });
  };
  new MutationObserver(name).observe(box, { childList: true, subtree: true });
  name();
}

// Have a screen reader say a text.
function announce(text) {
  const live = element.querySelector(".live");
  if (text && live.textContent !== text) live.textContent = text;
}
