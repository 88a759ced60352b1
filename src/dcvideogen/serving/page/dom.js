// Elements made in code. Whatever came from the server or from people goes in as text, never as markup.

/** h("p", {class: "note", onclick: f}, "text", node): attributes by name, listeners as on…; null and false leave out. */
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  set(node, attributes);
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Attributes as in `h`, of an element that is there; true: an attribute without a value. */
export function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === null || value === undefined || value === false) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
}

/** Writes only what changes: screen readers and the layout are left in peace otherwise. */
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

export const byId = (id) => document.getElementById(id);

export const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A sentence for screen readers; several in a row are said one after the other. */
export function announce(sentence) {
  const log = byId("announcements");
  log.append(h("p", {}, sentence));
  while (log.children.length > 8) log.firstChild.remove();
}

// Blur takes the question back before that, except in browsers that do not focus what is pressed.
const FORGET_MS = 20_000;

/** A button that asks once more: it acts on the second press. */
export function twice(label, question, name, act) {
  let armed = null;
  const button = h("button", { type: "button", class: "quiet", "aria-label": `${label}: ${name}` }, label);
  const disarm = () => {
    clearTimeout(armed);
    armed = null;
    text(button, label);
    set(button, { "aria-label": `${label}: ${name}`, class: "quiet" });
  };
  button.addEventListener("click", () => {
    if (armed !== null) {
      disarm();
      act();
      return;
    }
    text(button, question);
    set(button, { "aria-label": `${question} ${name}`, class: "quiet danger" });
    armed = setTimeout(disarm, FORGET_MS);
  });
  button.addEventListener("blur", () => armed !== null && disarm());
  return button;
}
