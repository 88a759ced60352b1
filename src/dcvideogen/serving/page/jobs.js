// All jobs that the page knows, newest first, kept true by events and by asking again.
import { json, Refused, server } from "./api.js";
import { events } from "./events.js";
import { ended } from "./words.js";

const PAGE = 24;
// Browsers hold 6 connections to a server of HTTP/1.1: what is followed must leave some for everything else.
const MAX_FOLLOWED = 3;
const POLL_MS = 4000;

/** "change" with a job as `detail`; "list" when jobs came, went or more can be had. */
class Jobs extends EventTarget {
  #jobs = new Map(); // id -> job
  #asOf = new Map(); // id -> when its state was asked for
  #followers = new Map(); // id -> AbortController
  #numbers = new Map(); // id -> order in which it became known, for jobs of one second
  #next = 0;
  #rounds = 0;
  hasMore = false;
  loaded = false;

  /** Newest first. */
  get all() {
    const order = (job) => this.#numbers.get(job.id);
    return [...this.#jobs.values()].sort((a, b) => b.created_at - a.created_at || order(b) - order(a));
  }

  get active() {
    return this.all.filter((job) => !ended(job));
  }

  get(id) {
    return this.#jobs.get(id);
  }

  /** The newest page again: new ones come in, ended ones are told, ones that others removed go. */
  async refresh() {
    const asked = performance.now();
    const page = await json(`v1/videos?limit=${PAGE}&order=desc`);
    const oldest = page.data.at(-1)?.created_at ?? -Infinity;
    const there = new Set(page.data.map((job) => job.id));
    let changed = !this.loaded;
    for (const [id, job] of this.#jobs) {
      const inPage = !page.has_more || job.created_at > oldest;
      if (inPage && !there.has(id) && this.#asOf.get(id) < asked) changed = this.#drop(id) || changed;
    }
    for (const job of page.data.toReversed()) changed = this.#put(job, asked) || changed;
    if (!this.loaded || this.#jobs.size <= page.data.length) this.hasMore = page.has_more;
    this.loaded = true;
    if (changed) this.#tell("list");
    this.follow();
  }

  /** The next page of older ones. */
  async older() {
    const asked = performance.now();
    const page = await json(`v1/videos?limit=${PAGE}&order=desc&after=${this.all.at(-1).id}`);
    this.#next = Math.min(0, ...this.#numbers.values()) - page.data.length;
    for (const job of page.data.toReversed()) this.#put(job, asked);
    this.#next = Math.max(0, ...this.#numbers.values()) + 1;
    this.hasMore = page.has_more;
    this.#tell("list");
  }

  /** A job that was just made. */
  add(job) {
    this.#put(job, performance.now());
    this.#tell("list");
    this.follow();
  }

  async cancel(id) {
    this.#put(await json(`v1/videos/${id}/cancel`, { method: "POST" }), performance.now());
    this.follow();
  }

  async remove(id) {
    try {
      await json(`v1/videos/${id}`, { method: "DELETE" });
    } catch (error) {
      if (!(error instanceof Refused && error.status === 404)) throw error;
    }
    if (this.#drop(id)) this.#tell("list");
  }

  /** Listens to the running ones and the next ones; polling tells of the others. */
  follow() {
    const rank = (job) => (job.status === "in_progress" ? 0 : 1 + (job.queue_position ?? 0));
    const chosen = this.active.sort((a, b) => rank(a) - rank(b)).slice(0, MAX_FOLLOWED);
    const ids = new Set(chosen.map((job) => job.id));
    for (const [id, follower] of this.#followers) if (!ids.has(id)) follower.abort();
    for (const id of ids) if (!this.#followers.has(id)) this.#follow(id);
  }

  start() {
    server.addEventListener("back", () => this.#quietly());
    document.addEventListener("visibilitychange", () => document.hidden || this.#quietly());
    setInterval(() => {
      this.#rounds += 1;
      // Jobs of other pages of the same person appear without anything running here, a little later.
      if (!document.hidden && (this.active.length > 0 || this.#rounds % 5 === 0)) this.#quietly();
    }, POLL_MS);
  }

  async #follow(id) {
    const follower = new AbortController();
    this.#followers.set(id, follower);
    try {
      for await (const { event, data } of events(`v1/videos/${id}/events`, follower.signal)) {
        if (event === "job") this.#put(JSON.parse(data), performance.now());
      }
    } catch (error) {
      // A line that broke is taken up again by the next poll; a job that is gone leaves with it.
      if (error instanceof Refused && error.status === 404 && this.#drop(id)) this.#tell("list");
    } finally {
      this.#followers.delete(id);
    }
    const job = this.#jobs.get(id);
    if (job && ended(job)) this.follow();
  }

  #put(job, asOf) {
    if ((this.#asOf.get(job.id) ?? -Infinity) > asOf) return false; // an answer that was overtaken by an event
    const before = this.#jobs.get(job.id);
    if (before && ended(before) && !ended(job)) return false;
    this.#asOf.set(job.id, asOf);
    this.#jobs.set(job.id, job);
    if (!before) this.#numbers.set(job.id, this.#next++);
    if (JSON.stringify(before) !== JSON.stringify(job)) this.#tell("change", job);
    return !before;
  }

  #drop(id) {
    this.#followers.get(id)?.abort();
    this.#asOf.set(id, performance.now()); // an answer that is on its way must not bring it back
    return this.#jobs.delete(id);
  }

  #quietly() {
    this.refresh().catch(() => {}); // `server` tells people of it
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

export const jobs = new Jobs();
