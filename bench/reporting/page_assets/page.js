"use strict";
// The answer browser. Text of models, questions and names is only ever put in by textContent.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const add = (parent, tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return parent.appendChild(element);
  };
  const zoom = at("zoom");
  for (const button of document.querySelectorAll("figure button")) {
    button.addEventListener("click", () => {
      zoom.querySelector(".scroll").replaceChildren(button.firstElementChild.cloneNode());
      zoom.showModal();
    });
  }
  at("unzoom").addEventListener("click", () => zoom.close());
  zoom.addEventListener("click", (event) => event.target === zoom && zoom.close()); // Beside it.
  if (!data.questions.length) return;

  // An answer is a list of these: see _answer in bench/reporting/browser_data.py.
  const FIELDS = [
    "decoder",
    "choice",
    "turn",
    "text",
    "accepts",
    "ends",
    "nodes",
    "finish",
    "prompt",
    "prefill",
    "seconds",
    "difference",
  ];
  const field = (answer, name) => answer[FIELDS.indexOf(name)];
  const named = (answer) => Object.fromEntries(FIELDS.map((name, index) => [name, answer[index]]));
  const strength = (accept) => [0.12, 0.22, 0.32, 0.42, 0.5][Math.min(accept, 5) - 1];
  const hidden = new Set();
  const chosen = { question: 0, turn: 1, choice: 0 };
  let shown = data.questions; // Those that the filter leaves.
  let cards = [];
  let used = null; // The card whose steps the keys move.

  const differs = (question) =>
    question.answers.some((answer) => (field(answer, "difference") ?? -1) >= 0);

  // --- Choosing a question, turn, choice and decoders --------------------------------------------

  // A question as the list and the address name it. Runs may ask several under one number.
  const nameOf = (question) =>
    question.version > 1 ? `${question.id} (${question.version})` : String(question.id);

  function fillQuestions() {
    shown = at("differing").checked ? data.questions.filter(differs) : data.questions;
    at("question").replaceChildren();
    const groups = new Map();
    shown.forEach((question, place) => {
      if (!groups.has(question.category)) {
        const group = add(at("question"), "optgroup");
        group.label = question.category;
        groups.set(question.category, group);
      }
      const start = (question.turns[0] || "").replace(/\s+/g, " ").slice(0, 70);
      add(
        groups.get(question.category),
        "option",
        `${nameOf(question)}${start && " \u2013 "}${start}`,
      ).value = place;
    });
  }

  function buttons(where, values, label, pressed, press) {
    // Buttons stay where they are, so that the one that was pressed keeps the focus.
    const made = [...where.querySelectorAll("button")];
    made.slice(values.length).forEach((button) => button.remove());
    values.forEach((value, place) => {
      const button = made[place] || add(where, "button");
      button.textContent = label(value);
      button.type = "button";
      button.setAttribute("aria-pressed", pressed(value));
      button.onclick = () => press(value);
    });
    where.hidden = values.length < 2;
  }

  const distinct = (answers, name) =>
    [...new Set(answers.map((answer) => field(answer, name)))].sort((a, b) => a - b);

  function show() {
    const question = shown[chosen.question];
    const turns = distinct(question.answers, "turn");
    if (!turns.includes(chosen.turn)) chosen.turn = turns[0];
    const choices = distinct(question.answers, "choice");
    if (!choices.includes(chosen.choice)) chosen.choice = choices[0];
    const pick = (name) => (value) => {
      chosen[name] = value;
      showAndName();
    };
    buttons(at("turns"), turns, String, (turn) => turn === chosen.turn, pick("turn"));
    buttons(
      at("choices"),
      choices,
      (choice) => String(choice + 1),
      (choice) => choice === chosen.choice,
      pick("choice"),
    );
    buttons(at("decoders"), data.decoders, String, (name) => !hidden.has(name), toggle);
    at("question").value = chosen.question;
    at("before").disabled = chosen.question === 0;
    at("after").disabled = chosen.question === shown.length - 1;

    at("asked").replaceChildren();
    question.turns.slice(0, chosen.turn).forEach((text, place) => {
      add(at("asked"), "div", text, place + 1 < chosen.turn ? "user earlier" : "user");
    });
    if (!question.turns.length)
      add(at("asked"), "p", "The question's text was not recorded with this run.", "quiet");
    const versions = data.questions.filter((each) => each.id === question.id);
    if (versions.length > 1) {
      const others = versions.filter((each) => each !== question).map(nameOf);
      add(
        at("asked"),
        "p",
        `Other questions have the same number: ${others.join(", ")}.`,
        "quiet",
      );
    }

    const answers = question.answers
      .map(named)
      .filter((a) => a.turn === chosen.turn && a.choice === chosen.choice);
    const baseOf = (answer) =>
      answers.find(
        (base) => base.decoder === data.baselines[answer.decoder] && base.finish !== "error",
      );
    at("cards").replaceChildren();
    cards = answers
      .filter((answer) => !hidden.has(data.decoders[answer.decoder]))
      .sort((a, b) => a.decoder - b.decoder)
      .map((answer) => card(question, answer, baseOf(answer)));
    const stepped = cards.filter((each) => each.slider);
    used = stepped.find((each) => each.trees) || stepped[0] || null;
  }

  // A question in the page's address.
  const addressOf = (question) => `#question-${encodeURI(nameOf(question))}`;
  // The question that an address names. A reader may type its characters as they are.
  const placeOf = (address) =>
    data.questions.findIndex(
      (each) => address === addressOf(each) || address === `#question-${nameOf(each)}`,
    );

  // Show what is chosen, and name it in the page's address.
  function showAndName() {
    show();
    history.replaceState(null, "", `${addressOf(shown[chosen.question])}-${chosen.turn}`);
  }

  // Show what the page's address names, if that is a question.
  function follow() {
    let [, address, turn] = /^(.*)-(\d+)$/.exec(location.hash) || [];
    let place = placeOf(address);
    if (place < 0) [place, turn] = [placeOf(location.hash), 1]; // The address of no turn.
    if (place < 0) return;
    at("differing").checked = false;
    fillQuestions();
    Object.assign(chosen, { question: place, turn: Number(turn) });
    show();
    at("answers").scrollIntoView();
  }

  function toggle(name) {
    hidden.has(name) ? hidden.delete(name) : hidden.add(name);
    show();
  }

  function move(by) {
    chosen.question = Math.min(Math.max(chosen.question + by, 0), shown.length - 1);
    showAndName();
  }

  function next(name) {
    const values = distinct(shown[chosen.question].answers, name);
    chosen[name] = values[(values.indexOf(chosen[name]) + 1) % values.length];
    showAndName();
  }

  // --- One decoder's answer ----------------------------------------------------------------------

  function card(question, answer, base) {
    const box = add(at("cards"), "article", undefined, "card");
    add(box, "h3", data.decoders[answer.decoder]);
    if (answer.finish === "error") {
      add(box, "p", "failed; in no number", "failed");
      add(box, "div", answer.text, "text");
      return { box };
    }
    const tokens = answer.accepts.reduce((sum, each) => sum + each, 0);
    const steps = answer.accepts.length;
    const time = (seconds) => (seconds === null ? "unknown" : `${seconds.toFixed(3)} s`);
    if (steps) {
      add(
        box,
        "p",
        `${tokens} tokens in ${steps} steps, ${(tokens / steps).toFixed(2)} a step; ` +
          `prefill ${time(answer.prefill)}, ` +
          `decoding ${time(answer.seconds)}; ended by ${answer.finish}`,
      );
    }
    const baseline = data.decoders[data.baselines[answer.decoder]];
    if (answer.difference === -1) add(box, "p", `same tokens as ${baseline}`);
    else if (answer.difference !== null) {
      const before = question.answers
        .map(named)
        .some(
          (other) =>
            other.decoder === answer.decoder &&
            other.choice === answer.choice &&
            other.turn < answer.turn &&
            other.difference !== null &&
            other.difference >= 0,
        );
      add(
        box,
        "p",
        `differs from ${baseline} from token ${answer.difference + 1} on` +
          (before ? "; so did an earlier turn, so its prompt was another" : ""),
        "unequal",
      );
    }
    const text = add(box, "div", undefined, "text");
    const characters = Array.from(answer.text); // Code points, as Python counts them.
    const foreign =
      base && base !== answer && base.text !== answer.text ? notIn(answer.text, base.text) : [];
    const pieces = [];
    let place = 0;
    const put = (end, step) => {
      while (place < end) {
        // Cut where the marking of differences begins or ends.
        let stop = place + 1;
        while (stop < end && Boolean(foreign[stop]) === Boolean(foreign[place])) stop += 1;
        const piece = add(text, "span", characters.slice(place, stop).join(""));
        if (foreign[place]) piece.classList.add("differs");
        if (step !== null) {
          piece.classList.add("piece");
          if (step % 2) piece.classList.add("odd");
          piece.style.setProperty("--a", strength(answer.accepts[step]));
          piece.dataset.step = step;
          (pieces[step] ||= []).push(piece);
        }
        place = stop;
      }
    };
    if (answer.ends.length) answer.ends.forEach((length, step) => put(place + length, step));
    else {
      put(characters.length, null);
      if (steps) add(box, "p", "Which step committed which characters was not recorded.");
    }
    const made = {
      box,
      steps,
      answer,
      pieces,
      step: -1,
      trees: data.trees[treeKey(question, answer)],
    };
    if (answer.ends.length) stepper(made, text);
    return made;
  }

  const treeKey = (question, answer) =>
    `${question.id}/${answer.decoder}/${answer.choice}/${answer.turn}`;

  function stepper(made, text) {
    const bar = add(made.box, "div", undefined, "stepper");
    const back = add(bar, "button", "\u2039");
    made.slider = add(bar, "input");
    const forth = add(bar, "button", "\u203a");
    back.type = forth.type = "button";
    back.setAttribute("aria-label", "previous step");
    forth.setAttribute("aria-label", "next step");
    Object.assign(made.slider, { type: "range", min: 0, max: made.steps - 1, value: 0 });
    made.slider.setAttribute("aria-label", "step");
    made.line = add(
      made.box,
      "p",
      made.trees ? "Steps with their trees: use the slider." : "Point at a piece, or tap it.",
    );
    made.line.setAttribute("role", "status");
    if (made.trees) made.tree = add(made.box, "div", undefined, "tree");
    back.addEventListener("click", () => goTo(made, made.step - 1));
    forth.addEventListener("click", () => goTo(made, made.step + 1));
    made.slider.addEventListener("input", () => goTo(made, Number(made.slider.value)));
    const pointed = (event) => {
      const piece = event.target.closest("[data-step]");
      if (piece) goTo(made, Number(piece.dataset.step));
    };
    text.addEventListener("click", pointed);
    // With trees, pointing does nothing: a tree stays until another step is chosen.
    if (!made.trees) text.addEventListener("mouseover", pointed);
    if (made.trees) goTo(made, 0);
  }

  function goTo(made, step) {
    step = Math.min(Math.max(step, 0), made.steps - 1);
    for (const piece of made.pieces[made.step] || []) piece.classList.remove("now");
    made.step = step;
    const now = made.pieces[step] || [];
    for (const piece of now) piece.classList.add("now");
    if (now.length) {
      // Scroll the answer, not the page.
      const text = now[0].parentElement,
        top = now[0].offsetTop,
        bottom = now.at(-1).offsetTop + now.at(-1).offsetHeight;
      if (top < text.scrollTop) text.scrollTop = top - 8;
      else if (bottom > text.scrollTop + text.clientHeight)
        text.scrollTop = bottom - text.clientHeight + 8;
    }
    for (const each of cards) each.box.classList.toggle("used", each === made);
    used = made;
    const { accepts, nodes } = made.answer;
    const accept = accepts[step];
    const verified = Array.isArray(nodes) ? nodes[step] : nodes;
    made.slider.value = step;
    made.line.textContent =
      `step ${step + 1} of ${made.steps}: ${count(accept, "token")} committed, ` +
      `${count(verified, "node")} verified` +
      (now.length ? "" : "; no character of the text is complete with it");
    if (made.tree) drawTree(made.tree, made.trees, step);
  }

  // --- Trees -------------------------------------------------------------------------------------

  function drawTree(where, { vocabulary, steps: trees }, step) {
    let shape = step;
    while (trees[shape][0] === 0) shape -= 1; // 0: the shape of the step before.
    const parent = trees[shape][0];
    const [, token, logProb, path] = trees[step];
    const kept = new Set(path);
    const children = parent.map(() => []);
    for (let node = 1; node < parent.length; node += 1) children[parent[node]].push(node);
    const depth = [],
      row = [];
    let rows = 0;
    const placeNode = (node, level, ownRow) => {
      // A first child stands on its parent's row.
      depth[node] = level;
      row[node] = ownRow;
      rows = Math.max(rows, ownRow + 1);
      children[node].forEach((child, order) => placeNode(child, level + 1, order ? rows : ownRow));
    };
    placeNode(0, 0, 0);
    const label = token.map((each) => data.tokens[vocabulary][each]);
    const note = token.map((_, node) => (logProb ? percent(100 * Math.exp(logProb[node])) : ""));
    const widths = [];
    label.forEach((text, node) => {
      const wide = 7.4 * textWidth(text) + 5.9 * (String(node).length + note[node].length) + 26;
      widths[depth[node]] = Math.max(widths[depth[node]] || 0, wide);
    });
    const left = [4];
    widths.forEach((wide, level) => {
      left[level + 1] = left[level] + wide + 24;
    });
    const high = 22,
      top = 18;
    const svg = draw(null, "svg", {
      width: left[widths.length],
      height: top + rows * high + 6,
      role: "img",
    });
    draw(svg, "title").textContent =
      `tree of step ${step + 1}: ${parent.length} nodes, ${kept.size} on the accepted path`;
    widths.forEach((_, level) => {
      draw(svg, "text", { x: left[level] + 3, y: 12, class: "small" }).textContent = level
        ? `depth ${level}`
        : "root";
    });
    const middle = (node) => top + row[node] * high + high / 2;
    const inner = [...parent.keys()].slice(1);
    for (const node of [...inner.filter((each) => !kept.has(each)), ...path.slice(1)]) {
      // The accepted path is drawn last.
      const above = parent[node];
      const start = left[depth[above]] + widths[depth[above]];
      const bend = start + 12;
      draw(svg, "path", {
        d: `M${start} ${middle(above)}H${bend}V${middle(node)}H${left[depth[node]]}`,
        class: kept.has(node) ? "kept" : "plain",
      });
    }
    parent.forEach((_, node) => {
      const x = left[depth[node]],
        wide = widths[depth[node]],
        y = middle(node);
      const shade = logProb ? 0.75 * Math.sqrt(Math.exp(logProb[node])) : 0;
      const box = draw(svg, "rect", {
        x,
        y: y - high / 2 + 2,
        width: wide,
        height: high - 4,
        rx: 3,
        class: kept.has(node) ? "kept" : "plain",
      });
      box.style.fill = `rgba(var(--node), ${shade.toFixed(3)})`;
      const number = String(node);
      draw(svg, "text", { x: x + 4, y: y + 4, class: "small" }).textContent = number;
      draw(svg, "text", { x: x + 8 + 5.9 * number.length, y: y + 4 }).textContent = label[node];
      draw(svg, "text", {
        x: x + wide - 4,
        y: y + 4,
        "text-anchor": "end",
        class: "small",
      }).textContent = note[node];
    });
    where.replaceChildren(svg);
    // Scroll as little as brings the end of the accepted path into sight.
    const last = path[path.length - 1];
    where.scrollTop = Math.max(0, top + (row[last] + 1) * high + 8 - where.clientHeight);
    where.scrollLeft = Math.max(0, left[depth[last]] + widths[depth[last]] + 8 - where.clientWidth);
  }

  function draw(parent, tag, attributes = {}) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return parent ? parent.appendChild(element) : element;
  }

  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const percent = (value) =>
    value < 0.1 ? "<0.1" : value < 9.95 ? value.toFixed(1) : value.toFixed(0);
  // Characters beyond the first planes' letters take two columns of a fixed-pitch font.
  const textWidth = (text) =>
    Array.from(text).reduce((sum, c) => sum + (c.codePointAt(0) > 0x2e7f ? 2 : 1), 0);

  // --- Words that differ from the baseline's -----------------------------------------------------

  // [characters of `text`] Is the character's word outside a longest common sequence of words?
  function notIn(text, other) {
    const words = (all) => all.match(/\s+|[^\s\w]|\w+/gu) || [];
    const own = words(text),
      theirs = words(other);
    let start = 0,
      end = 0;
    while (start < own.length && start < theirs.length && own[start] === theirs[start]) start += 1;
    while (
      end < Math.min(own.length, theirs.length) - start &&
      own[own.length - 1 - end] === theirs[theirs.length - 1 - end]
    )
      end += 1;
    const a = own.slice(start, own.length - end),
      b = theirs.slice(start, theirs.length - end);
    const common = new Set();
    if (a.length * b.length <= 4e6) {
      // Beyond that, all between the common ends counts as different.
      const wide = b.length + 1;
      const longest = new Uint16Array((a.length + 1) * wide);
      for (let i = a.length - 1; i >= 0; i -= 1) {
        for (let j = b.length - 1; j >= 0; j -= 1) {
          longest[i * wide + j] =
            a[i] === b[j]
              ? longest[(i + 1) * wide + j + 1] + 1
              : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
        }
      }
      for (let i = 0, j = 0; i < a.length && j < b.length;) {
        if (a[i] === b[j]) {
          common.add(start + i);
          i += 1;
          j += 1;
        } else if (longest[(i + 1) * wide + j] >= longest[i * wide + j + 1]) i += 1;
        else j += 1;
      }
    }
    const marks = [];
    own.forEach((word, index) => {
      const foreign = index >= start && index < own.length - end && !common.has(index);
      for (const _ of word) marks.push(foreign);
    });
    return marks;
  }

  // --- Start -------------------------------------------------------------------------------------

  at("question").addEventListener("change", (event) => {
    chosen.question = Number(event.target.value);
    showAndName();
  });
  at("before").addEventListener("click", () => move(-1));
  at("after").addEventListener("click", () => move(1));
  at("only").hidden = !data.questions.some(differs);
  at("differing").addEventListener("change", () => {
    fillQuestions();
    chosen.question = 0;
    show();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("select")) return;
    if (zoom.open) return;
    if (
      event.key.startsWith("Arrow") &&
      event.target.matches("input[type=range], .scroll, .text, .tree")
    )
      return; // These keys move them.
    const digit = /^[1-9]$/.test(event.key) ? data.decoders[Number(event.key) - 1] : undefined;
    if (event.key === "ArrowLeft") move(-1);
    else if (event.key === "ArrowRight") move(1);
    else if (event.key === "t") next("turn");
    else if (event.key === "c") next("choice");
    else if (event.key === "," && used) goTo(used, used.step - 1);
    else if (event.key === "." && used) goTo(used, used.step + 1);
    else if (digit !== undefined) toggle(digit);
    else return;
    event.preventDefault();
  });
  const legend = document.querySelector(".legend");
  for (let accept = 1; accept <= 5; accept += 1) {
    const piece = add(
      legend,
      "span",
      ` ${accept}${accept === 5 ? " or more" : ""} `,
      `piece${accept % 2 ? " odd" : ""}`,
    );
    piece.style.setProperty("--a", strength(accept));
  }
  at("browser").hidden = false;
  fillQuestions();
  show();
  follow();
  window.addEventListener("hashchange", follow);
})();
