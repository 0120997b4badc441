/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Creates an element. Children are elements or texts; a text is never parsed as HTML. Properties are attributes, except
 * for functions, which listen to the event of their name.
 */
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Changes the text of an element only if it differs, so that screen readers do not repeat it. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A group of radio buttons that look like one switch. `chosen` is always what it shows. */
export function segments(container, name, choices, chosen, onChoose) {
  const signature = JSON.stringify(choices);
  if (container.dataset.shown !== signature) {
    container.dataset.shown = signature;
    const labels = choices.map(({ value, label }) =>
      el("label", {}, el("input", { type: "radio", name, value, class: "unseen", change: () => onChoose(value) }), el("span", {}, label)),
    );
    container.replaceChildren(...labels);
  }
  for (const input of container.querySelectorAll("input")) input.checked = input.value === chosen;
}

export const clock = (date) => new Date(date).toLocaleTimeString([], { hour12: false });

export const isNarrow = () => matchMedia("(max-width: 900px)").matches;

/** Scrolls without motion if the user prefers that. */
export function scrollTo(element, block) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ block, behavior: still ? "auto" : "smooth" });
}
