// Two blind answers side by side. Texts of models are only set as text; the value comes from AnswerPair.view, which
// contains no name of a model before the visitor has chosen.
const root = element.querySelector(".duel");
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};

let newest = 0;

function draw() {
  const duel = props.value || {};
  if (duel.number < newest) return; // an event's last view, sent again after a newer one
  newest = duel.number || 0;
  if (!duel.question) {
    root.replaceChildren(make("div", "greeting", duel.greeting || ""));
    return;
  }
  const question = make("div", "message user");
  question.append(make("div", "bubble", duel.question));
  const pair = make("div", "pair");
  duel.answers.forEach((answer, place) => {
    const card = make("section", "card");
    const head = make("div", "head", "AB"[place]);
    if (answer.model) head.append(make("span", "model", answer.model));
    const text = make("div", "text", answer.text);
    if (answer.state === "writing") text.append(make("span", "cursor"));
    card.append(head, text);
    if (answer.remark) card.append(make("div", "remark", answer.remark));
    if (duel.picked === place) card.classList.add("picked");
    pair.append(card);
  });
  root.replaceChildren(question, pair);
  const choices = [["A is better", 1], ["A tie", 0], ["B is better", -1]];
  if (duel.ready) {
    const row = make("div", "choices");
    for (const [text, value] of choices) {
      const choice = make("button", "choice", text);
      choice.type = "button";
      choice.addEventListener("click", () => trigger("pick", { value }));
      row.append(choice);
    }
    root.append(row);
  }
  if (duel.saved) {
    const saved = make("div", duel.refused ? "saved refused" : "saved", duel.saved);
    saved.setAttribute("role", "status");
    root.append(saved);
  }
}
watch("value", draw);
draw();
