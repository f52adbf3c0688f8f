// Tables with headers, rows that keep their place (and the focus in them) while others change, paging and search.

import { arrange, element } from "./dom.js";

/**
 * A table in a box that can be scrolled by keyboard.
 * columns: [{title, cell(row) -> text or Node, number, head}]; key(row) -> what a row is known by.
 */
export class Table {
  constructor(caption, columns, key) {
    this.columns = columns;
    this.key = key;
    this.rows = new Map();
    this.body = element("tbody");
    const heads = columns.map((each) =>
      element("th", { scope: "col", ...(each.number ? { class: "number" } : {}) }, each.title));
    const table = element("table", { "aria-label": caption },
      element("thead", {}, element("tr", {}, ...heads)), this.body);
    this.box = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
  }

  show(rows) {
    const kept = new Map();
    const placed = rows.map((row) => {
      const name = String(this.key(row));
      const content = JSON.stringify(row);
      const before = this.rows.get(name);
      const entry = before?.content === content ? before : { content, line: this.line(row) };
      kept.set(name, entry);
      return entry.line;
    });
    this.rows = kept;
    arrange(this.body, placed);
  }

  line(row) {
    return element("tr", {}, ...this.columns.map((each) => {
      const attributes = each.number ? { class: "number" } : {};
      return each.head
        ? element("th", { scope: "row", ...attributes }, each.cell(row))
        : element("td", attributes, each.cell(row));
    }));
  }
}

/** A table of which the coordinator gives one page at a time. `changed()` is called when another is wanted. */
export class PagedTable {
  constructor(place, caption, columns, key, changed, choices = []) {
    this.size = 100;
    this.offset = 0;
    this.table = new Table(caption, columns, key);
    this.find = element("input", { type: "search", maxlength: "128", "aria-label": `Find in ${caption}`, placeholder: "Find a name" });
    this.only = element("select", { "aria-label": `Which of ${caption}` },
      ...choices.map(([value, text]) => element("option", { value }, text)));
    this.only.hidden = choices.length === 0;
    this.back = element("button", { type: "button", "aria-label": `Previous page of ${caption}` }, "Previous");
    this.next = element("button", { type: "button", "aria-label": `Next page of ${caption}` }, "Next");
    this.count = element("span", { role: "status", "aria-live": "polite" });
    this.content = element("div", {},
      element("div", { class: "tools" }, this.find, this.only, this.back, this.next, this.count), this.table.box);
    this.note = element("p", { class: "note" });
    place.replaceChildren(this.content, this.note);
    const again = (offset) => { this.offset = Math.max(0, offset); changed(); };
    this.find.addEventListener("input", () => again(0));
    this.only.addEventListener("change", () => again(0));
    this.back.addEventListener("click", () => again(this.offset - this.size));
    this.next.addEventListener("click", () => again(this.offset + this.size));
  }

  get query() {
    const asked = new URLSearchParams({ offset: this.offset, limit: this.size });
    if (this.find.value) asked.set("find", this.find.value);
    if (this.only.value) asked.set("state", this.only.value);
    return asked.toString();
  }

  show({ total, offset, rows }) {
    this.content.hidden = false;
    this.note.textContent = "";
    this.table.show(rows);
    const said = total === 0 ? "none" : `${offset + 1} to ${offset + rows.length} of ${total}`;
    if (this.count.textContent !== said) this.count.textContent = said;
    this.back.disabled = offset === 0;
    this.next.disabled = offset + rows.length >= total;
    if (offset >= total && offset > 0) this.offset = Math.max(0, Math.floor((total - 1) / this.size) * this.size);
  }

  refuse(sentence) {
    this.content.hidden = true;
    this.table.show([]);
    this.note.textContent = sentence;
  }
}
