// All videos, newest first, a page at a time.
import { byId } from "./dom.js";
import { Card } from "./card.js";
import { jobs } from "./jobs.js";

/** actions: as `Card`'s. */
export class Gallery {
  #cards = new Map();
  #actions;
  #list = byId("gallery");
  #watch = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        this.#watch.unobserve(target);
        this.#cards.get(target.dataset.id)?.near();
      }
    },
    { rootMargin: "200px" },
  );

  constructor(actions) {
    this.#actions = actions;
    jobs.addEventListener("list", () => this.#lay());
    jobs.addEventListener("change", ({ detail }) => this.#cards.get(detail.id)?.update(detail));
    byId("older").addEventListener("click", async () => {
      byId("older").disabled = true;
      await jobs.older().catch(actions.report);
      byId("older").disabled = false;
    });
  }

  #lay() {
    const shown = jobs.all.filter((job) => job.kind === "generate");
    const ids = new Set(shown.map((job) => job.id));
    for (const [id, card] of this.#cards) {
      if (ids.has(id)) continue;
      this.#leave(card.element);
      this.#cards.delete(id);
    }
    for (const [index, job] of shown.entries()) {
      const card = this.#cards.get(job.id) ?? this.#make(job);
      // Elements that are in place stay untouched, and with them the focus.
      if (this.#list.children[index] !== card.element) this.#list.insertBefore(card.element, this.#list.children[index] ?? null);
    }
    byId("older").hidden = !jobs.hasMore;
    byId("gallery-part").hidden = shown.length === 0;
  }

  /** The focus of a removed card goes to the next one, not to the start of the page. */
  #leave(element) {
    const next = element.nextElementSibling ?? element.previousElementSibling;
    const held = element.contains(document.activeElement);
    element.remove();
    if (held) (next?.querySelector("button") ?? byId("prompt")).focus();
  }

  #make(job) {
    const card = new Card(job, this.#actions);
    card.element.dataset.id = job.id;
    this.#cards.set(job.id, card);
    this.#watch.observe(card.element);
    return card;
  }
}
