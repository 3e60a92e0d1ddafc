"use strict";
// Shows the clips: sorted, filtered, 50 a page.  Whatever comes from the data enters the page as text
// or as the value of an attribute, never as markup.
(() => {
  const PAGE_SIZE = 50;
  const data = JSON.parse(document.getElementById("data").textContent);
  const clips = data.clips;
  const known = (key) => clips.some((clip) => clip[key] !== undefined);
  const byId = (id) => document.getElementById(id);

  // Every column that can be sorted, and those that are shown only where something is known.
  const columns = [
    { key: "text", label: "Caption", order: 1 },
    { key: "id", label: "Id", order: 1 },
    { key: "system", label: "System", order: 1 },
    { key: "score", label: "Score", order: 1, says: data.interval },
    { key: "width", label: "Interval width", order: -1 },
    { key: "human", label: "Human", order: -1, says: "mean human score" },
    { key: "dispute", label: "Dispute", order: -1, says: data.dispute },
    { key: "novelty", label: "Novelty", order: -1, says: "above 1, the pair is unlike those that the scorer was fitted on" },
  ].filter((column) => known(column.key));
  const lists = [
    { key: "score", order: 1, label: "Worst", says: "lowest score first" },
    { key: "score", order: -1, label: "Best", says: "highest score first" },
    { key: "width", order: -1, label: "Most uncertain", says: "widest interval first" },
    { key: "novelty", order: -1, label: "Most novel", says: "least like the training pairs first" },
    { key: "dispute", order: -1, label: "Most disputed", says: `by ${data.dispute}` },
  ].filter((list) => known(list.key));

  const state = { key: lists[0].key, order: lists[0].order, search: "", system: null, page: 0 };

  // What the search looks in, made once.
  const haystacks = clips.map((clip) =>
    [clip.text, clip.id, clip.system ?? "", ...(clip.columns ?? []).map(([, value]) => value)]
      .join("\n")
      .toLowerCase(),
  );
  const collator = new Intl.Collator(undefined, { numeric: true });

  function shownRows() {
    const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = clips
      .map((_, row) => row)
      .filter((row) => state.system === null || clips[row].system === state.system)
      .filter((row) => words.every((word) => haystacks[row].includes(word)));
    const { key, order } = state;
    return rows.sort((a, b) => {
      const [x, y] = [clips[a][key], clips[b][key]];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined) || a - b;
      const difference = typeof x === "number" ? x - y : collator.compare(x, y);
      return order * difference || a - b;
    });
  }

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function drawing(tag, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  const number = (value) => value.toFixed(2);

  // The score and its interval on the scale from 0 to 10; the human score is a hollow mark.
  function scale(clip) {
    const x = (value) => 6 + 10.8 * Math.min(10, Math.max(0, value));
    const svg = drawing("svg", { class: "scale", viewBox: "0 0 120 16", "aria-hidden": "true" });
    svg.append(drawing("line", { class: "axis", x1: x(0), x2: x(10), y1: 8, y2: 8 }));
    for (const end of [0, 5, 10])
      svg.append(drawing("line", { class: "axis", x1: x(end), x2: x(end), y1: 5, y2: 11 }));
    if (clip.width !== undefined)
      svg.append(drawing("line", { class: "interval", x1: x(clip.low), x2: x(clip.high), y1: 8, y2: 8 }));
    svg.append(drawing("circle", { class: "score", cx: x(clip.score), cy: 8, r: 4 }));
    if (clip.human !== undefined)
      svg.append(drawing("rect", { class: "human", x: x(clip.human) - 3, y: 5, width: 6, height: 6 }));
    return svg;
  }

  function scoreCell(clip) {
    const cell = element("td", { class: "score", "data-label": "Score" });
    cell.append(element("span", { class: "value" }, number(clip.score)), scale(clip));
    if (clip.width !== undefined) {
      cell.append(element("span", { class: "small" }, `${number(clip.low)} to ${number(clip.high)}`));
    }
    return cell;
  }

  function soundCell(clip) {
    const cell = element("td", { class: "sound" });
    if (clip.picture) {
      const title = `${clip.duration} s from left to right, ${data.scale} from the bottom to the top, logarithmic`;
      cell.append(
        element("img", {
          src: clip.picture,
          loading: "lazy",
          width: 320,
          height: 96,
          alt: `Spectrogram of “${clip.text}”: ${title}`,
          title,
        }),
      );
    }
    if (clip.sound) {
      const player = element("audio", {
        controls: "",
        preload: "none",
        src: clip.sound,
        "aria-label": `Clip ${clip.id}`,
      });
      player.addEventListener("error", () => {
        player.replaceWith(element("p", { class: "small" }, "The file is not there, or this browser cannot play it."));
      });
      cell.append(player);
    } else {
      const reason = clip.failed ? "The clip cannot be read." : "No sound on this page.";
      cell.append(element("p", { class: "small" }, reason));
    }
    return cell;
  }

  function textCell(clip) {
    const cell = element("td", { class: "text" });
    cell.append(
      element("p", { class: "caption", dir: "auto" }, clip.text),
      element("p", { class: "id small", dir: "auto" }, clip.id),
    );
    if (clip.columns) {
      const list = element("dl");
      for (const [name, value] of clip.columns)
        list.append(element("dt", { dir: "auto" }, name), element("dd", { dir: "auto" }, value));
      const one = clip.columns.length === 1;
      const summary = element("summary", {}, one ? "1 more column" : `${clip.columns.length} more columns`);
      cell.append(element("details", {}, summary, list));
    }
    return cell;
  }

  function rowOf(clip) {
    const row = element("tr", {}, soundCell(clip), textCell(clip));
    for (const { key, label } of columns) {
      if (key === "text" || key === "id") continue;
      if (key === "score") {
        row.append(scoreCell(clip));
        continue;
      }
      const value = clip[key];
      const cell = element("td", { "data-label": label, class: key });
      if (value === undefined) cell.classList.add("unknown");
      cell.append(value === undefined ? "–" : typeof value === "number" ? number(value) : value);
      if (key === "novelty" && value > 1) cell.classList.add("novel");
      row.append(cell);
    }
    return row;
  }

  function sortBy(key, order) {
    Object.assign(state, { key, order, page: 0 });
    show();
  }

  const isSorted = ({ key, order }) => state.key === key && state.order === order;

  function sortButton(column) {
    const button = element("button", { type: "button", class: "head" }, column.label);
    if (column.says) button.title = column.says;
    button.addEventListener("click", () =>
      sortBy(column.key, state.key === column.key ? -state.order : column.order),
    );
    column.button = button;
    return button;
  }

  function makeControls() {
    for (const list of lists) {
      list.button = element("button", { type: "button", title: list.says }, list.label);
      list.button.addEventListener("click", () => sortBy(list.key, list.order));
      byId("lists").append(list.button);
    }
    // The caption's and the id's buttons share a column.
    const heads = byId("heads");
    heads.append(element("th", { scope: "col" }, element("span", { class: "head" }, "Sound")));
    for (const column of columns) {
      if (column.key === "id") {
        heads.lastChild.append(sortButton(column));
      } else {
        heads.append(element("th", { scope: "col", class: column.key }, sortButton(column)));
      }
      column.head = heads.lastChild;
    }
    const systems = [...new Set(clips.map((clip) => clip.system))].filter((name) => name !== undefined);
    systems.sort(collator.compare);
    byId("system-label").hidden = systems.length < 2;
    for (const [index, name] of ["all", ...systems].entries()) {
      // By number: a system may be called “all”.
      byId("system").append(element("option", { value: index - 1 }, name));
    }
    byId("system").addEventListener("change", (event) => {
      state.system = systems[Number(event.target.value)] ?? null;
      state.page = 0;
      show();
    });
    byId("search").addEventListener("input", (event) => {
      state.search = event.target.value;
      state.page = 0;
      show();
    });
    byId("controls").hidden = false;
  }

  function pageButton(label, page, isPossible) {
    const button = element("button", { type: "button" }, label);
    button.disabled = !isPossible;
    button.addEventListener("click", () => {
      state.page = page;
      show();
      byId("clips").scrollIntoView();
      byId("status").focus({ preventScroll: true });
    });
    return button;
  }

  function show() {
    const rows = shownRows();
    const nPages = Math.max(1, Math.ceil(rows.length / PAGE_SIZE));
    const start = state.page * PAGE_SIZE;
    const shown = rows.slice(start, start + PAGE_SIZE);
    byId("rows").replaceChildren(...shown.map((row) => rowOf(clips[row])));

    for (const list of lists) list.button.setAttribute("aria-pressed", isSorted(list));
    for (const head of byId("heads").children) head.removeAttribute("aria-sort");
    for (const { key, button, head } of columns) {
      const isActive = key === state.key;
      button.dataset.order = isActive ? state.order : "";
      if (isActive) head.setAttribute("aria-sort", state.order > 0 ? "ascending" : "descending");
    }
    const list = lists.find(isSorted);
    const range = rows.length ? `${start + 1} to ${start + shown.length} of ` : "";
    const all = rows.length === clips.length ? "" : ` found among ${clips.length.toLocaleString("en")}`;
    byId("status").textContent =
      `Clips ${range}${rows.length.toLocaleString("en")}${all}` + (list ? `, ${list.says}.` : ".");
    byId("pages").hidden = nPages === 1;
    byId("pages").replaceChildren(
      pageButton("Previous", state.page - 1, state.page > 0),
      element("span", {}, `Page ${state.page + 1} of ${nPages}`),
      pageButton("Next", state.page + 1, state.page < nPages - 1),
    );
  }

  // One clip plays at a time.
  document.addEventListener(
    "play",
    (event) => {
      for (const player of document.querySelectorAll("audio"))
        if (player !== event.target) player.pause();
    },
    true,
  );

  byId("status").tabIndex = -1;
  makeControls();
  show();
})();
