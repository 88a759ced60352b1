// What the server can do, and which jobs belong together.
import { json } from "./api.js";

const known = new Map();

/** Asks once; again with the next call if the server did not answer. */
export async function loadModels() {
  if (known.size === 0) for (const model of (await json("v1/models")).data) known.set(model.id, model);
  return [...known.values()];
}

export const model = (id) => known.get(id);

/** The served base of a model, or undefined. */
export const baseOf = (id) => known.get(known.get(id)?.base);

const SAME = ["kind", "prompt", "negative_prompt", "size", "num_frames", "fps", "steps", "guidance", "seed"];

/** The same request to the model's base, or to what was made of it; undefined where nobody asked for that. */
export function partner(job, all) {
  if (job.kind !== "generate") return undefined;
  const related = (other) => known.get(job.model)?.base === other.model || known.get(other.model)?.base === job.model;
  return all.find((other) => related(other) && SAME.every((name) => job[name] === other[name]));
}

const tokens = new Map();

/** Tokens of the transformer in each pass of a job: of its plan, which is asked for once. Null: nobody knows. */
export function tokensOf(job) {
  const body = Object.fromEntries(
    ["model", "prompt", "negative_prompt", "size", "num_frames", "fps", "steps", "guidance", "seed"]
      .map((name) => [name, job[name]])
      .filter(([, value]) => value !== null),
  );
  const name = `${job.model} ${job.size} ${job.num_frames}`;
  if (!tokens.has(name)) {
    const asked = json("v1/plan", { method: "POST", json: body }).then((plan) => plan.tokens);
    asked.catch(() => tokens.delete(name));
    tokens.set(name, asked);
  }
  return tokens.get(name).catch(() => null);
}
