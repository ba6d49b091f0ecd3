// Two blind answers side by side. The value comes from AnswerPair.view, which contains no name of a model before the visitor
// has chosen.
const root = element.querySelector(".duel");
labelled(root, "region", "Two answers");
root.tabIndex = 0; // it scrolls

function card(answer, place, picked) {
  const letter = "AB"[place], node = labelled(make("section", picked ? "card picked" : "card"), "group", `Answer ${letter}`);
  const head = make("div", "head", letter);
  if (answer.model) head.append(make("span", "model", answer.model));
  node.append(head, fill(make("div", "text"), answer.text, answer.state === "writing"));
  if (answer.remark) node.append(make("div", "remark", answer.remark));
  return node;
}

function choices() {
  const row = make("div", "choices");
  for (const [text, value] of [["A is better", 1], ["A tie", 0], ["B is better", -1]])
    row.append(button("choice", text, "Save this choice", () => trigger("pick", { value })));
  return row;
}

let newest = 0;

function draw() {
  const duel = props.value || {};
  if (duel.number < newest) return; // an event's last view, sent again after a newer one
  newest = duel.number || 0;
  const scrolled = root.scrollTop, nodes = [];
  if (duel.question) {
    const question = labelled(make("div", "message user"), "group", "You"), pair = make("div", "pair");
    question.append(fill(make("div", "bubble"), duel.question));
    pair.append(...duel.answers.map((answer, place) => card(answer, place, duel.picked === place)));
    nodes.push(question, pair);
  } else nodes.push(make("div", "greeting", duel.greeting || ""));
  if (duel.ready) nodes.push(choices());
  if (duel.saved) nodes.push(verdict(duel));
  if (duel.problem) nodes.push(problem(duel.problem));
  root.replaceChildren(...nodes);
  root.scrollTop = duel.saved || duel.problem ? root.scrollHeight : scrolled;
  announce(duel.saved || (duel.ready ? duel.answers.map((answer, n) => `Answer ${"AB"[n]}: ${answer.text}`).join("\n") : ""));
}
nameButtons("ask");
watch("value", draw);
draw();
