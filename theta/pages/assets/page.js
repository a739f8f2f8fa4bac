"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  for (const section of data.sections) {
    const { keys, rows } = section.tensors;
    section.tensors = rows.map((values) => Object.fromEntries(keys.map((key, k) => [key, values[k]])));
  }
  const page = document.getElementById("page");
  const NS = "http://www.w3.org/2000/svg";
  const VIRIDIS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725"];
  const STATUS = { A: "added", D: "deleted", M: "changed", S: "resized", T: "dtype", R: "renamed" };
  const ROWS = 200;

  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return node;
  };
  // All text of the data is safe to show (theta/pages/safe_text.py), and becomes text nodes and attributes only.
  const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(NS, tag), attributes, children);

  // -- numbers --------------------------------------------------------------------------------

  const digits = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e5 || size < 1e-3) return value.toExponential(2);
    return String(Number(value.toPrecision(3)));
  };
  const bytes = (value) => {
    let size = value;
    for (const unit of ["B", "kB", "MB", "GB"]) {
      if (Math.abs(size) < 1000) return `${unit === "B" || size >= 100 ? size.toFixed(0) : size.toFixed(1)} ${unit}`;
      size /= 1000;
    }
    return `${size.toFixed(1)} TB`;
  };
  const told = (value, form) => {
    if (value === null || value === undefined) return "";
    if (form === "bytes") return bytes(value);
    return form === "percent" ? `${digits(100 * value)}%` : digits(value);
  };
  const shape = (sizes) => (sizes && sizes.length ? sizes.join("×") : "scalar");
  const broken = (name) => name.split(/(?<=[./_])/).flatMap((part) => [part, html("wbr")]);
  const isOdd = (row) => Boolean(row.infinite || row.nans || row.odd_numbers);
  const odd = (row) => [row.infinite ? `${row.infinite} infinite` : "", row.nans ? `${row.nans} no number` : ""].filter(Boolean).join(", ");
  const number = (row, metric) => row.odd_numbers?.[metric.key] ?? told(row[metric.key], metric.form);
  const sizes = (row) => (row.old_shape ? `${shape(row.old_shape)} → ${shape(row.shape)}` : shape(row.shape));
  const look = (row, metric, of) => {
    if (isOdd(row)) return { class: "cell odd" };
    if (row.status === "A" || row.status === "D") return { class: `cell ${row.status === "A" ? "added" : "deleted"}` };
    if (!has(row, metric.key)) return { class: "cell aside" };
    return row[metric.key] === 0 ? { class: "cell zero" } : { class: "cell", fill: colour(of.share(row[metric.key])) };
  };
  const has = (row, key) => row[key] !== null && row[key] !== undefined;

  // -- colours --------------------------------------------------------------------------------

  const colour = (share) => {
    const at = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
    const [low, high] = [Math.floor(at), Math.ceil(at)].map((k) => VIRIDIS[k].match(/../g).map((part) => parseInt(part, 16)));
    return `rgb(${low.map((part, k) => Math.round(part + (high[k] - part) * (at % 1))).join(",")})`;
  };
  const scale = (values, linear) => {
    if (linear) return { share: (value) => value, low: 0, most: 1 };
    const positive = values.filter((value) => value > 0);
    const least = positive.reduce((a, b) => Math.min(a, b), Infinity);
    const most = positive.reduce((a, b) => Math.max(a, b), 0);
    const low = Math.max(least, most / 1e6);
    const share = (value) => {
      if (!(value > 0)) return 0;
      return most > low ? (Math.log(Math.max(value, low)) - Math.log(low)) / (Math.log(most) - Math.log(low)) : 1;
    };
    return { share, low, most };
  };

  // -- a hint at the pointer --------------------------------------------------------------------

  const hint = html("div", { id: "hint", "aria-hidden": "true" });
  const show = (event, text) => {
    hint.textContent = text;
    hint.style.display = text ? "block" : "none";
    hint.style.left = `${Math.min(event.clientX + 14, innerWidth - 260)}px`;
    hint.style.top = `${event.clientY + 14}px`;
  };

  // -- the map of layers and kinds of modules -----------------------------------------------------

  const grid = (section) => {
    const layers = [...new Set([...section.tensors, ...section.same.map(([layer]) => ({ layer }))].map((row) => row.layer))];
    layers.sort((a, b) => (a === null ? -1 : b === null ? 1 : a - b));
    const kinds = [...new Set([...section.tensors.map((row) => row.kind), ...section.same.map(([, kind]) => kind)])].sort();
    const cells = new Map();
    section.tensors.forEach((row, number) => {
      const key = `${layers.indexOf(row.layer)} ${kinds.indexOf(row.kind)}`;
      if (!cells.has(key)) cells.set(key, []);
      cells.get(key).push(number);
    });
    const same = new Set(section.same.map(([layer, kind]) => `${layers.indexOf(layer)} ${kinds.indexOf(kind)}`));
    return { layers, kinds, cells, same };
  };

  const largest = (section, numbers, key) =>
    numbers.reduce((best, k) => (has(section.tensors[k], key) && !(section.tensors[best]?.[key] >= section.tensors[k][key]) ? k : best), numbers[0]);

  const heat = (section, places, metric, choose, live) => {
    const { layers, kinds, cells, same } = places;
    const left = Math.min(Math.max(...kinds.map((kind) => kind.length)) * 6.7 + 12, 420);
    const wide = Math.min(Math.max(Math.floor((1240 - left) / Math.max(layers.length, 1)), 5), 26);
    const tall = kinds.length > 60 ? 12 : 17;
    const ranks = new Map([...cells].map(([key, numbers]) => [key, largest(section, numbers, metric.key)]));
    const of = scale([...ranks.values()].map((k) => section.tensors[k][metric.key] ?? 0), metric.linear);
    // A cell is drawn, told and opened as one of its tensors: an odd one, or else the largest.
    for (const [key, numbers] of cells) ranks.set(key, numbers.find((k) => isOdd(section.tensors[k])) ?? ranks.get(key));
    const picture = svg("svg", {
      width: left + wide * layers.length + 8, height: 22 + tall * kinds.length + 4, role: "img", tabindex: "0",
      "aria-label": `Map of ${kinds.length} kinds of tensors by ${layers.length} layers, coloured by ${metric.label}. ` +
        "Arrow keys move, Enter shows the tensor. The table below has the same numbers.",
    });
    const numbered = layers.length && layers[0] === null ? 1 : 0;
    const step = Math.ceil((7 * String(layers.at(-1) ?? "").length + 6) / wide);
    layers.forEach((layer, x) => {
      if (layer === null || (x - numbered) % step === 0) picture.append(svg("text", { x: left + x * wide + wide / 2, y: 14, "text-anchor": "middle" }, layer === null ? "·" : String(layer)));
    });
    kinds.forEach((kind, y) => {
      const most = Math.floor((left - 12) / 6.7);
      const shown = [...kind];
      const label = shown.length > most ? `…${shown.slice(1 - most).join("")}` : kind;
      picture.append(svg("text", { class: "kind", x: left - 6, y: 22 + y * tall + tall / 2 + 4, "text-anchor": "end" }, label));
    });
    const box = (x, y, more) => svg("rect", { x: left + x * wide, y: 22 + y * tall, width: wide - 1, height: tall - 1, rx: 1.5, ...more });
    for (const key of same) {
      const [x, y] = key.split(" ").map(Number);
      if (!cells.has(key)) picture.append(box(x, y, { class: "none" }));
    }
    for (const [key, number] of ranks) {
      const [x, y] = key.split(" ").map(Number);
      const drawn = look(section.tensors[number], metric, of);
      const cut = cells.get(key).some((k) => section.tensors[k].part);
      picture.append(box(x, y, { "data-key": key, ...drawn, class: drawn.class + (cut ? " part" : "") }));
    }
    const ring = svg("rect", { class: "now", width: wide + 1, height: tall + 1, rx: 2, visibility: "hidden" });
    picture.append(ring);
    let at = null;
    const words = (key) => {
      const row = section.tensors[ranks.get(key)];
      const of = cells.get(key).length;
      const first = isOdd(row) ? "one" : "the largest";
      return `${row.name}: ${number(row, metric) ? `${metric.label} ${number(row, metric)}` : STATUS[row.status] ?? row.status}` +
        (odd(row) ? ` (${odd(row)})` : "") + (row.part ? ` (${row.part} compared)` : "") + (of > 1 ? ` (${first} of ${of} tensors)` : "");
    };
    const move = (key, byKey) => {
      at = key;
      const [x, y] = key.split(" ").map(Number);
      for (const [name, value] of Object.entries({ x: left + x * wide - 1, y: 21 + y * tall, visibility: "visible" })) ring.setAttribute(name, value);
      live.textContent = words(key);
      const there = ring.getBoundingClientRect();
      if (byKey) show({ clientX: there.right, clientY: there.bottom - 10 }, words(key));
    };
    const keyOf = (event) => event.target.getAttribute?.("data-key");
    picture.addEventListener("pointermove", (event) => show(event, keyOf(event) ? words(keyOf(event)) : ""));
    picture.addEventListener("pointerleave", (event) => show(event, ""));
    picture.addEventListener("click", (event) => {
      if (!keyOf(event)) return;
      move(keyOf(event));
      choose(ranks.get(at));
    });
    picture.addEventListener("blur", () => { hint.style.display = "none"; });
    picture.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if ((event.key === "Enter" || event.key === " ") && at) {
        event.preventDefault();
        choose(ranks.get(at));
      }
      if (!by) return;
      event.preventDefault();
      if (!at) { move([...ranks.keys()][0], true); return; }
      let [x, y] = at.split(" ").map(Number);
      do { x += by[0]; y += by[1]; } while (x >= 0 && y >= 0 && x < layers.length && y < kinds.length && !ranks.has(`${x} ${y}`));
      if (ranks.has(`${x} ${y}`)) move(`${x} ${y}`, true);
    });
    return { picture, of };
  };

  const legend = (section, metric, of) => {
    const stops = Array.from({ length: 24 }, (_, k) => svg("rect", { x: k * 6, y: 0, width: 6, height: 11, fill: colour(k / 23) }));
    const ends = of.most > 0 ? [told(of.low, metric.form), told(of.most, metric.form)] : ["", ""];
    const rows = section.tensors;
    const marks = [["none", "did not change", section.same.length],
      ["aside", "changed on one side, or not to be compared", rows.some((row) => look(row, metric, of).class === "cell aside")], ["zero", "zero", rows.some((row) => row[metric.key] === 0 && !isOdd(row))],
      ["odd", "infinite or no number", rows.some(isOdd)], ["zero part", "only the leading part was compared", rows.some((row) => row.part)],
      ["added", "added", rows.some((row) => row.status === "A")], ["deleted", "deleted", rows.some((row) => row.status === "D")]];
    const swatch = (look) => svg("svg", { width: 15, height: 13, "aria-hidden": "true" }, svg("rect", { class: look, x: 1, y: 1, width: 13, height: 11, rx: 1.5 }));
    return html("div", { class: "legend" }, html("span", {}, `${metric.label}, ${metric.linear ? "linear" : "logarithmic"}: `,
      html("span", { class: "ends" }, `${ends[0]} `, svg("svg", { width: 144, height: 11, "aria-hidden": "true" }, stops), ` ${ends[1]}`)),
      marks.filter(([, , there]) => there).map(([look, words]) => html("span", {}, swatch(look), ` ${words}`)));
  };

  // -- lines ------------------------------------------------------------------------------------

  const chart = (lines, labels, form, title) => {
    const [width, height, left, bottom] = [Math.min(700, Math.max(320, innerWidth - 60)), 150, 64, 22];
    const values = lines.flatMap((line) => line.values).filter((value) => value !== null);
    if (!values.length) return null;
    const [least, most] = [Math.min(0, ...values), Math.max(...values)];
    const x = (k) => left + (labels.length > 1 ? (k * (width - left - 12)) / (labels.length - 1) : 0);
    const y = (value) => height - bottom - ((value - least) * (height - bottom - 12)) / (most - least || 1);
    const picture = svg("svg", { width, height, role: "img", "aria-label": title },
      svg("path", { class: "axis", d: `M${left} 8V${height - bottom}H${width - 8}` }),
      svg("text", { x: left - 6, y: 16, "text-anchor": "end" }, told(most, form)),
      svg("text", { x: left - 6, y: height - bottom, "text-anchor": "end" }, told(least, form)));
    const step = Math.ceil((labels.length * 46) / (width - left)) || 1;
    labels.forEach((label, k) => {
      if (k % step === 0) picture.append(svg("text", { x: x(k), y: height - 6, "text-anchor": "middle" }, label));
    });
    for (const line of lines) {
      let pen = "M";
      const path = line.values.map((value, k) => {
        if (value === null) { pen = "M"; return ""; }
        const part = `${pen}${x(k).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
        return part;
      });
      picture.append(svg("path", { class: line.look, d: path.join("") }));
      if (line.values.filter((value) => value !== null).length === 1) {
        const k = line.values.findIndex((value) => value !== null);
        picture.append(svg("circle", { class: "fill", cx: x(k), cy: y(line.values[k]), r: 3 }));
      }
    }
    return picture;
  };

  const bars = (values, labels, form, title) => {
    const [width, height, left, bottom] = [Math.min(700, Math.max(320, innerWidth - 60)), 150, 64, 22];
    const most = Math.max(...values.map((value) => value ?? 0)) || 1;
    const wide = Math.min((width - left - 8) / values.length, 66);
    const picture = svg("svg", { width, height, role: "img", "aria-label": title },
      svg("path", { class: "axis", d: `M${left} 8V${height - bottom}H${left + wide * values.length + 4}` }),
      svg("text", { x: left - 6, y: 16, "text-anchor": "end" }, told(most, form)));
    const step = Math.ceil(60 / wide);  // seven digits of an id, and room between two
    values.forEach((value, k) => {
      const tall = ((value ?? 0) / most) * (height - bottom - 12);
      const bar = svg("rect", { class: "fill", x: left + 2 + k * wide, y: height - bottom - tall, width: Math.max(wide - 2, 1), height: tall });
      bar.addEventListener("pointermove", (event) => show(event, `${labels[k]}: ${told(value, form)}`));
      bar.addEventListener("pointerleave", (event) => show(event, ""));
      picture.append(bar);
      if (k % step === 0) picture.append(svg("text", { x: Math.max(left + 2 + (k + 0.5) * wide, left + 24), y: height - 6, "text-anchor": "middle" }, labels[k]));
    });
    return picture;
  };

  const median = (values) => {
    const half = values.length >> 1;
    if (!values.length) return null;
    return values.length % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
  };

  const profile = (section, layers, metric) => {
    const numbered = layers.filter((layer) => layer !== null);
    if (numbered.length < 2) return null;
    const of = numbered.map((layer) => section.tensors.filter((row) => row.layer === layer && has(row, metric.key)).map((row) => row[metric.key]).sort((a, b) => a - b));
    const lines = [
      { look: "most", values: of.map((values) => (values.length ? values[values.length - 1] : null)) },
      { look: "middle", values: of.map(median) },
    ];
    const peak = lines[0].values.reduce((best, value, k) => (value > (lines[0].values[best] ?? -1) ? k : best), 0);
    const title = `${metric.label} by layer; largest in layer ${numbered[peak]}: ${told(lines[0].values[peak], metric.form)}`;
    const picture = chart(lines, numbered.map(String), metric.form, title);
    return picture && html("figure", {}, html("figcaption", {}, `${metric.label} by layer: the largest tensor (orange), the median (blue)`), picture);
  };

  // -- one tensor -------------------------------------------------------------------------------

  const histogram = (row) => {
    if (!row.counts || !row.counts.length) return null;
    const [wide, height] = [Math.max(6, Math.min(14, 320 / row.counts.length)), 110];
    const most = Math.max(...row.counts);
    const picture = svg("svg", { width: wide * row.counts.length + 60, height: height + 20, role: "img",
      "aria-label": `Histogram of the absolute change in ${row.counts.length} powers of two; most elements near ${digits(2 ** (row.lowest + row.counts.indexOf(most)))}` });
    row.counts.forEach((count, k) => {
      const tall = (count / most) * height;
      const bar = svg("rect", { class: "fill", x: 30 + k * wide, y: height - tall, width: wide - 1, height: Math.max(tall, count ? 0.75 : 0) });
      bar.addEventListener("pointermove", (event) => show(event, `${count} elements changed by ${digits(2 ** (row.lowest + k))} to ${digits(2 ** (row.lowest + k + 1))}`));
      bar.addEventListener("pointerleave", (event) => show(event, ""));
      picture.append(bar);
    });
    picture.append(svg("path", { class: "axis", d: `M30 ${height}H${30 + wide * row.counts.length}` }));
    for (const k of new Set([0, row.counts.length])) {
      picture.append(svg("text", { x: 30 + k * wide, y: height + 14, "text-anchor": "middle" }, digits(2 ** (row.lowest + k))));
    }
    const others = odd(row) ? `, ${odd(row)}` : "";
    const of = row.part ? ` of the ${row.part}` : "";
    return html("figure", {}, html("figcaption", {}, `|Δ| of the elements that changed${of} (${row.zeros} did not${others})`), picture);
  };

  const spectrum = (row) => {
    if (!row.singular || !row.singular.length) return null;
    const picture = chart([{ look: "middle", values: row.singular }], row.singular.map((_, k) => String(k + 1)), "number",
      `Singular values of the change, the largest ${digits(row.singular[0])}`);
    return html("figure", {}, html("figcaption", {}, `singular values of Δ; effective rank ${digits(row.effective_rank)}`), picture);
  };

  const rows = (row) => {
    if (!row.rows || !row.rows.length) return null;
    const body = row.rows.map(([index, norm]) => html("tr", {}, html("td", { class: "number" }, String(index)), html("td", { class: "number" }, digits(norm))));
    return html("figure", {}, html("figcaption", {}, "rows that moved most"), html("table", {},
      html("thead", {}, html("tr", {}, html("th", { class: "number", scope: "col" }, "row"), html("th", { class: "number", scope: "col" }, "‖Δ‖"))),
      html("tbody", {}, body)));
  };

  const facts = (pairs) => html("dl", {}, pairs.map(([name, text]) => [html("dt", {}, name), html("dd", {}, text)]));

  const detail = (section, row) => {
    const pairs = [["status", STATUS[row.status] ?? row.status],
      ["shape", sizes(row)],
      ["dtype", row.old_dtype ? `${row.old_dtype} → ${row.dtype}` : row.dtype]];
    if (row.part) pairs.push(["compared", row.part]);
    if (row.old_name) pairs.push(["formerly", row.old_name]);
    if (has(row, "cosine")) pairs.push(["cosine", digits(row.cosine)]);
    for (const metric of section.metrics) if (number(row, metric)) pairs.push([metric.label, number(row, metric)]);
    if (odd(row)) pairs.push(["elements", odd(row)]);
    if (row.codecs) pairs.push(["codecs", row.codecs]);
    if (row.ranks?.length) pairs.push(["rank found by lowrank", row.ranks.join(", ")]);
    for (const note of row.notes ?? []) pairs.push(note);
    return [html("h3", {}, row.name), facts(pairs), html("div", { class: "side" }, histogram(row), spectrum(row), rows(row))];
  };

  // -- the table --------------------------------------------------------------------------------

  const table = (section, metrics, choose) => {
    const columns = [{ key: "name", label: "tensor" },
      ...(section.tensors.some((row) => row.status) ? [{ key: "status", label: "what" }] : []),
      { key: "shape", label: "shape" }, { key: "dtype", label: "dtype" },
      ...metrics.map((metric) => ({ ...metric, label: metric.short, words: metric.label, number: true })),
      ...(section.tensors.some((row) => row.codecs) ? [{ key: "codecs", label: "codecs" }] : [])];
    const state = { key: metrics[0]?.key ?? "name", down: Boolean(metrics.length), words: "", status: "", shown: ROWS };
    const body = html("tbody");
    const count = html("span", { class: "soft", role: "status" });
    const more = html("button", { type: "button", onclick: () => { state.shown += 5 * ROWS; draw(); } });
    const heads = columns.map((column) => {
      const head = html("th", { scope: "col", class: column.number ? "number" : null },
        html("button", { type: "button", title: column.words, onclick: () => {
          state.down = state.key === column.key ? !state.down : Boolean(column.number);
          state.key = column.key;
          draw();
        } }, column.label));
      head.dataset.key = column.key;
      return head;
    });
    const value = (row) => {
      if (state.key === "shape") return row.shape.reduce((a, b) => a * b, 1);
      return row.odd_numbers?.[state.key] ? Infinity : row[state.key];
    };
    const order = (a, b) => {
      const [one, two] = [value(section.tensors[a]), value(section.tensors[b])];
      if (one === undefined || one === null) return two === undefined || two === null ? a - b : 1;
      if (two === undefined || two === null) return -1;
      return ((one < two ? -1 : one > two ? 1 : 0) * (state.down ? -1 : 1)) || a - b;
    };
    const wanted = (row) => (!state.status || row.status === state.status) && state.words.split(/\s+/).every((word) => row.name.toLowerCase().includes(word));
    const draw = () => {
      const found = section.tensors.map((_, k) => k).filter((k) => wanted(section.tensors[k])).sort(order);
      body.replaceChildren(...found.slice(0, state.shown).map((k) => line(k)));
      count.textContent = found.length === section.tensors.length ? `${found.length} tensors` : `${found.length} of ${section.tensors.length} tensors`;
      more.hidden = found.length <= state.shown;
      more.textContent = `Show more (${found.length - state.shown} left)`;
      for (const head of heads) {
        if (head.dataset.key === state.key) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
        const button = head.firstChild;
        button.textContent = button.textContent.replace(/ [▲▼]$/, "") + (head.dataset.key === state.key ? (state.down ? " ▼" : " ▲") : "");
      }
    };
    const line = (k) => {
      const row = section.tensors[k];
      return html("tr", { "data-row": k }, columns.map((column) => {
        if (column.key === "name") return html("td", { class: "name" }, html("button", { type: "button", onclick: () => choose(k) }, broken(row.name)));
        if (column.key === "status") return html("td", { class: row.status }, STATUS[row.status] ?? row.status);
        if (column.key === "shape") return html("td", {}, sizes(row), row.part ? html("div", { class: "soft" }, `${row.part} compared`) : null);
        if (column.number) return html("td", { class: "number" }, number(row, column));
        return html("td", {}, String(row[column.key] ?? ""));
      }));
    };
    const kinds = [...new Set(section.tensors.map((row) => row.status))];
    const bar = html("div", { class: "bar" },
      html("label", {}, "search", html("input", { type: "search", placeholder: "words of a name", oninput: (event) => {
        state.words = event.target.value.trim().toLowerCase();
        state.shown = ROWS;
        draw();
      } })),
      kinds.length > 1 ? html("label", {}, "show", html("select", { onchange: (event) => { state.status = event.target.value; draw(); } },
        html("option", { value: "" }, "all"), kinds.map((kind) => html("option", { value: kind }, STATUS[kind] ?? kind)))) : null,
      count);
    draw();
    return [bar, html("div", { class: "table" }, html("table", {}, html("thead", {}, html("tr", {}, heads)), body)), more];
  };

  // -- one checkpoint -----------------------------------------------------------------------------

  const checkpoint = (section) => {
    const metrics = section.metrics.filter((metric) => section.tensors.some((row) => number(row, metric)));
    const live = html("p", { class: "live", "aria-live": "polite" });
    const place = html("div", { class: "pictures" });
    const [above, beside] = [html("div"), html("div", { class: "pictures" })];
    const panel = html("section", { class: "detail", tabindex: "-1", "aria-label": "tensor" });
    panel.hidden = true;
    const choose = (k) => {
      const from = document.activeElement;
      const close = () => {
        panel.hidden = true;
        from?.focus();
      };
      panel.replaceChildren(html("button", { type: "button", class: "close", onclick: close }, "close"), ...detail(section, section.tensors[k]));
      panel.onkeydown = (event) => { if (event.key === "Escape") close(); };
      panel.hidden = false;
      for (const row of document.querySelectorAll("tr.now")) row.classList.remove("now");
      part.querySelector(`tr[data-row="${k}"]`)?.classList.add("now");
      panel.focus({ preventScroll: true });
      panel.scrollIntoView({ block: "nearest" });
    };
    const size = grid(section);
    const draw = (metric) => {
      const { picture, of } = heat(section, size, metric, choose, live);
      place.replaceChildren(picture);
      above.replaceChildren(legend(section, metric, of));
      beside.replaceChildren(...[profile(section, size.layers, metric)].filter(Boolean));
    };
    const part = html("section", {}, html("h2", {}, section.path), html("p", {}, section.summary), facts(section.facts));
    if (metrics.length) {
      draw(metrics[0]);
      part.append(html("div", { class: "bar" }, html("label", {}, "colour by", html("select", {
        onchange: (event) => draw(metrics[Number(event.target.value)]),
      }, metrics.map((metric, k) => html("option", { value: k }, metric.label))))), above, html("div", { class: "board" }, html("div", {}, place, live), beside));
    }
    part.append(panel);
    if (section.tensors.length) part.append(...table(section, metrics, choose));
    return part;
  };

  // -- a history ----------------------------------------------------------------------------------

  const graph = (commits) => {
    const [tall, wide] = [26, 16];
    const at = new Map(commits.map((one, k) => [one.commit, k]));
    const lane = new Map();
    let free = 0;
    for (const one of commits) {
      if (!lane.has(one.commit)) lane.set(one.commit, free++);
      one.parents.forEach((parent, k) => {
        if (at.has(parent) && !lane.has(parent)) lane.set(parent, k === 0 ? lane.get(one.commit) : free++);
      });
    }
    const [x, y] = [(oid) => 10 + wide * lane.get(oid), (oid) => 14 + tall * at.get(oid)];
    const left = 24 + wide * free;
    const picture = svg("svg", { width: Math.max(left + 900, 320), height: tall * commits.length + 8, role: "img",
      "aria-label": `Graph of ${commits.length} commits, the newest first; the table below lists them` });
    for (const one of commits) {
      for (const parent of one.parents.filter((oid) => at.has(oid))) {
        const [a, b, c, d] = [x(one.commit), y(one.commit), x(parent), y(parent)];
        picture.append(svg("path", { class: "edge", d: a === c ? `M${a} ${b}V${d}` : `M${a} ${b}C${a} ${b + 20} ${c} ${d - 20} ${c} ${d}` }));
      }
    }
    for (const one of commits) {
      const names = one.names?.length ? ` (${one.names.join(", ")})` : "";
      picture.append(svg("circle", { class: "dot", cx: x(one.commit), cy: y(one.commit), r: 5 }),
        svg("text", { x: left, y: y(one.commit) + 4 }, svg("tspan", { class: "id" }, one.commit.slice(0, 10)), `${names} ${one.subject}`));
    }
    return picture;
  };

  const history = (commits) => {
    const newest = [...commits].reverse();
    const names = [...new Set(commits.flatMap((one) => Object.keys(one.metrics ?? {})))];
    const labels = commits.map((one) => (has(one, "step") ? String(one.step) : one.commit.slice(0, 7)));
    const charts = [["stored bytes", "bytes", commits.map((one) => one.stored ?? null)],
      ...names.map((name) => [name, "number", commits.map((one) => one.metrics?.[name] ?? null)])];
    const drawn = charts.filter(([, , values]) => values.some((value) => value !== null)).map(([name, form, values]) => {
      const title = `${name} by commit`;
      const picture = form === "bytes" ? bars(values, labels, form, title) : chart([{ look: "middle", values }], labels, form, title);
      return html("figure", {}, html("figcaption", {}, `${name} by commit`), picture);
    });
    const body = newest.map((one) => html("tr", {}, html("td", {}, html("code", {}, one.commit.slice(0, 12))), html("td", {}, one.subject),
      html("td", {}, one.author), html("td", {}, one.date), html("td", {}, one.changes ?? ""), html("td", { class: "number" }, told(one.stored, "bytes"))));
    const heads = ["commit", "subject", "author", "date", "changes", "stored"];
    return html("section", {}, html("h2", { class: "plain" }, "History"), html("div", { class: "pictures" }, graph(newest)), html("div", { class: "side" }, drawn),
      html("div", { class: "table" }, html("table", {}, html("thead", {}, html("tr", {}, heads.map((head) => html("th", { scope: "col" }, head)))), html("tbody", {}, body))));
  };

  page.append(html("h1", {}, data.title), facts(data.facts));
  if (data.message) page.append(html("p", { class: "message" }, data.message));
  if (data.history.length) page.append(history(data.history));
  page.append(...data.sections.map(checkpoint));
  if (!data.sections.length && !data.history.length) page.append(html("p", {}, "There are no differences."));
  page.append(html("footer", {}, "Made by theta. This page contains all of its data and loads nothing."));
  document.body.append(hint);
})();
