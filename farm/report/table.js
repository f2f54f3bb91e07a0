// Sorts, filters and pages the table of videos. Without it the whole table stands on the page.
(() => {
  const table = document.querySelector("table.videos");
  if (!table) return;
  document.documentElement.classList.add("js");
  const PAGE = 50;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((tr, order) => ({
    tr, order, verdict: tr.dataset.verdict, text: tr.textContent.toLowerCase(),
    keys: [...tr.cells].map((cell) => cell.dataset.key ?? cell.textContent.trim()),
  }));
  const search = document.querySelector("#search");
  const chips = [...document.querySelectorAll(".chip input")];
  const [previous, next] = document.querySelectorAll(".pager button");
  const where = document.querySelector("#where");
  let shown = rows, page = 0;

  function draw() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const from = page * PAGE, to = Math.min(from + PAGE, shown.length);
    for (const row of rows) row.tr.hidden = true;
    shown.forEach((row, i) => { row.tr.hidden = i < from || i >= to; });
    where.textContent = shown.length
      ? `${(from + 1).toLocaleString("en")}–${to.toLocaleString("en")} of ${shown.length.toLocaleString("en")}` : "No video matches.";
    previous.disabled = page === 0;
    next.disabled = page >= pages - 1;
  }
  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = new Set(chips.filter((chip) => chip.checked).map((chip) => chip.value));
    shown = rows.filter((row) => (!wanted.size || wanted.has(row.verdict)) && words.every((word) => row.text.includes(word)));
    page = 0;
    draw();
  }
  function sort(column, down) {
    const sign = down ? -1 : 1;
    rows.sort((a, b) => {
      const x = a.keys[column], y = b.keys[column];
      if (x === "" || y === "") return x === y ? a.order - b.order : x === "" ? 1 : -1;
      const numeric = !isNaN(x) && !isNaN(y);
      return sign * (numeric ? x - y : x.localeCompare(y, undefined, { numeric: true })) || a.order - b.order;
    });
    const fragment = document.createDocumentFragment();
    for (const row of rows) fragment.append(row.tr);
    body.append(fragment);
    filter();
  }
  for (const th of table.tHead.rows[0].cells) {
    const button = th.querySelector("button");
    if (!button) continue;
    button.addEventListener("click", () => {
      const down = th.getAttribute("aria-sort") === "descending" ? false
        : th.getAttribute("aria-sort") === "ascending" ? true : th.dataset.first === "down";
      for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort(th.cellIndex, down);
    });
  }
  search.addEventListener("input", filter);
  for (const chip of chips) chip.addEventListener("change", filter);
  previous.addEventListener("click", () => { page -= 1; draw(); });
  next.addEventListener("click", () => { page += 1; draw(); });
  document.querySelector(".pager").hidden = rows.length <= PAGE;
  draw();
})();
