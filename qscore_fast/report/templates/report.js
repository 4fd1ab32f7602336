"use strict";
(() => {
  const island = JSON.parse(document.getElementById("images").textContent);
  const data = island.images;
  const page = 72;

  const element = (name, css, text) => {
    const made = document.createElement(name);
    if (css) made.className = css;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const score = (value) => (value === null ? "none" : value.toFixed(4));
  const altOf = (image) =>
    `${image.id}${image.label === null ? "" : `, ${image.label}`}, score ${score(image.q)}`;

  function fillFrame(frame, image, feature) {
    frame.replaceChildren();
    if (image.picture === null) {
      frame.append(element("span", "none", image.missing || "no picture"));
      return;
    }
    for (const [source, css] of [[image.picture, ""], [mapOf(image, feature), "map"]]) {
      if (!source) continue;
      const img = element("img", css);
      img.src = source;
      img.alt = css ? "" : altOf(image);
      img.decoding = "async";
      if (island.served) img.loading = "lazy";
      img.addEventListener("load", () => {
        img.classList.toggle("tiny", Math.max(img.naturalWidth, img.naturalHeight) <= 64);
      });
      img.addEventListener("error", () => frame.replaceChildren(element("span", "none", "no picture")));
      frame.append(img);
    }
    if (image.correct === false) frame.append(element("span", "wrong", "wrong"));
  }

  // In the gallery of a feature, the map is that of the feature alone.
  function mapOf(image, feature) {
    return (feature && island.featureMaps[feature]?.[image.place]) || image.map;
  }

  function cardOf(image) {
    const card = element("button", "card");
    card.type = "button";
    card.dataset.image = image.place;
    const frame = element("span", "frame");
    fillFrame(frame, image);
    const line = element("span", "score", score(image.q));
    if (image.label !== null) line.append(element("i", "", image.label));
    const id = element("span", "id");
    id.append(element("bdi", "", image.id));
    id.title = image.id;
    card.append(frame, line, id, element("span", "chips", chipsOf(image)));
    return card;
  }

  function chipsOf(image) {
    if (!image.active) return "no active feature";
    if (!image.features.length) return `${image.active} active feature${image.active === 1 ? "" : "s"}`;
    const named = image.features.slice(0, 3).map(([j]) => `f${j}`).join(" ");
    return `${named}${image.active > 3 ? ` +${image.active - 3}` : ""}`;
  }

  data.forEach((image, place) => { image.place = place; });
  for (const card of document.querySelectorAll(".card")) {
    const feature = card.parentElement.dataset.feature;
    fillFrame(card.querySelector(".frame"), data[card.dataset.image], feature);
  }

  // Enlarging: the images before and after are those of the gallery that the image was opened in.
  const viewer = document.getElementById("viewer");
  const parts = Object.fromEntries(
    [...viewer.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
  let siblings = [];
  let feature;
  let current = 0;

  function show(place) {
    current = place;
    const image = data[siblings[place]];
    fillFrame(parts.frame, image, feature);
    parts.frame.classList.toggle("maps", parts.map.getAttribute("aria-pressed") === "true");
    parts.map.hidden = !mapOf(image, feature);
    parts.score.textContent = score(image.q);
    parts.rank.textContent = `above ${(100 * image.below).toFixed(1)} % of the images`;
    parts.id.textContent = image.id;
    parts.facts.replaceChildren();
    const facts = [
      ["Class", image.label === null ? "not known" : image.label],
      ["Active features", `${image.active} of D, ${image.highly} in all`],
      ["Norm", image.norm === null ? "none" : image.norm.toPrecision(4)],
    ];
    if (image.size) facts.push(["Size", `${image.size[0]} × ${image.size[1]} pixels`]);
    if (typeof image.correct === "boolean") facts.push(["Probe", image.correct ? "correct" : "wrong"]);
    for (const [name, value] of facts) {
      parts.facts.append(element("dt", "", name), element("dd", "", value));
    }
    parts.features.replaceChildren();
    const largest = Math.max(...image.features.map(([, value]) => Math.abs(value)), 1e-9);
    for (const [feature, value] of image.features) {
      const item = element("li");
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      svg.setAttribute("viewBox", "0 0 100 6");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      bar.setAttribute("width", (100 * Math.abs(value)) / largest);
      bar.setAttribute("height", 6);
      svg.append(bar);
      item.append(element("span", "", `f${feature}`), svg, element("span", "", value.toFixed(3)));
      parts.features.append(item);
    }
    parts.copied.textContent = "";
    if (island.served) complete(image);
    parts.previous.disabled = place === 0;
    parts.next.disabled = place === siblings.length - 1;
  }

  // What a server keeps until it is asked: the large picture, and the features of a found image.
  async function complete(image) {
    const img = parts.frame.querySelector("img");
    if (img) img.src = `${image.picture}?large=true`;
    if (image.features.length || !image.active) return;
    const answer = await fetch(`images/${image.row}`);
    if (!answer.ok) return;
    image.features = (await answer.json()).features;
    if (image.features.length && data[siblings[current]] === image) show(current);
  }

  document.addEventListener("click", (event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    const cards = [...card.parentElement.querySelectorAll(".card")];
    feature = card.parentElement.dataset.feature;
    siblings = cards.map((one) => Number(one.dataset.image));
    show(cards.indexOf(card));
    viewer.showModal();
  });
  parts.previous.addEventListener("click", () => show(current - 1));
  parts.next.addEventListener("click", () => show(current + 1));
  parts.close.addEventListener("click", () => viewer.close());
  parts.map.addEventListener("click", () => {
    const on = parts.map.getAttribute("aria-pressed") !== "true";
    parts.map.setAttribute("aria-pressed", String(on));
    parts.frame.classList.toggle("maps", on);
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" && current > 0) show(current - 1);
    if (event.key === "ArrowRight" && current < siblings.length - 1) show(current + 1);
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  parts.copy.addEventListener("click", async () => {
    const text = parts.id.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A page from disk may have no clipboard of its own.
      const area = element("textarea", "visually-hidden");
      area.value = text;
      viewer.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      parts.copy.focus();
    }
    parts.copied.textContent = "Copied";
  });

  const toggle = document.getElementById("maps");
  if (toggle) {
    toggle.addEventListener("click", () => {
      const on = document.body.classList.toggle("maps");
      toggle.setAttribute("aria-pressed", String(on));
    });
  }

  const form = document.getElementById("tools");
  const grid = document.getElementById("found");
  if (form) {
    const count = document.getElementById("count");
    const more = document.getElementById("more");
    const value = (name) => (form.elements[name] ? form.elements[name].value.trim() : "");
    const say = (total, of) => {
      count.textContent = `${total.toLocaleString("en")} of ${of.toLocaleString("en")} images`;
    };
    let matching = [];
    let drawn = 0;
    const by = {
      "score-up": (a, b) => a.q - b.q || a.row - b.row,
      "score-down": (a, b) => b.q - a.q || a.row - b.row,
      "name": (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0),
      "active-down": (a, b) => b.active - a.active || a.row - b.row,
    };
    const drawOwn = () => {
      for (const image of matching.slice(drawn, drawn + page)) grid.append(cardOf(image));
      drawn = Math.min(drawn + page, matching.length);
      more.hidden = drawn === matching.length;
    };
    const findOwn = () => {
      const words = value("search").toLowerCase();
      const least = parseFloat(value("least"));
      const most = parseFloat(value("most"));
      matching = data.filter((image) =>
        (!words || image.id.toLowerCase().includes(words)) &&
        (value("label") === "" || image.class === Number(value("label"))) &&
        !(image.q < least) && !(image.q > most) &&
        (value("outcome") === "" || image.correct === (value("outcome") === "correct")));
      matching.sort(by[value("sort")]);
      drawn = 0;
      grid.replaceChildren();
      say(matching.length, data.length);
      drawOwn();
    };

    // Of a served run every page is asked for; an answer that comes late is of an older question.
    let asked = 0;
    const drawServed = async () => {
      const question = asked;
      const [sort, direction] = value("sort").split("-");
      const words = new URLSearchParams({ sort, offset: drawn, limit: page });
      if (direction === "down") words.set("descending", "true");
      for (const name of ["search", "label", "least", "most"]) {
        if (value(name) !== "") words.set(name, value(name));
      }
      const answer = await fetch(`images?${words}`);
      if (question !== asked) return;
      if (!answer.ok) {
        count.textContent = `The server answered with an error (${answer.status}).`;
        return;
      }
      const found = await answer.json();
      if (question !== asked) return;
      if (drawn === 0) grid.replaceChildren();
      for (const image of found.images) {
        image.place = data.length;
        data.push(image);
        grid.append(cardOf(image));
      }
      drawn += found.images.length;
      more.hidden = drawn >= found.total;
      say(found.total, island.total);
    };
    const findServed = () => {
      asked += 1;
      drawn = 0;
      data.length = own;
      drawServed();
    };
    const own = data.length;
    const draw = island.served ? drawServed : drawOwn;
    const find = island.served ? findServed : findOwn;
    form.addEventListener("input", find);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(find));
    more.addEventListener("click", draw);
    find();
  }

  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("section[id]")) seen.observe(section);
})();
