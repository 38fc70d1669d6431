// Check a bundle as a web app runs it: onnxruntime-web (WebAssembly), and the tokenizer of transformers.js.
//
//     node golden.cjs MODULES BUNDLE
//
// MODULES is a folder with node_modules in it. Prints one JSON, as `run.py --golden` does; exit codes 0 equal, 2 cannot be run, 4 differs.

const fs = require("node:fs");
const path = require("node:path");
const { createRequire } = require("node:module");

const [modules, bundle] = process.argv.slice(2).map((name) => path.resolve(name));
const load = createRequire(path.join(modules, "package.json"));
const ort = load("onnxruntime-web");
const { Tokenizer } = load("@huggingface/tokenizers");

const read = (name) => fs.readFileSync(path.join(bundle, name), "utf8");
const facts = JSON.parse(read("edgetune.json"));
const prefix = facts.generation ? facts.generation.prefix : "";
const suffix = facts.generation ? facts.generation.suffix : "";
const settings = fs.existsSync(path.join(bundle, "tokenizer_config.json")) ? JSON.parse(read("tokenizer_config.json")) : {};
const tokenizer = new Tokenizer(JSON.parse(read("tokenizer.json")), settings);
const ARRAYS = { int64: BigInt64Array, int32: Int32Array, float: Float32Array };

// Token ids as in training. transformers.js would cut the last special token off with the rest: here the text is cut, and it stays.
function encode(text) {
  if (facts.generation) return tokenizer.encode(prefix + text.trim() + suffix, { add_special_tokens: false }).ids;
  const ids = tokenizer.encode(text).ids;
  if (ids.length <= facts.max_length) return ids;
  const bare = tokenizer.encode(text, { add_special_tokens: false }).ids;
  const before = ids.findIndex((_, start) => bare.every((id, i) => ids[start + i] === id));
  const room = facts.max_length - (ids.length - bare.length);
  const kept = facts.truncation_side === "left" ? bare.slice(bare.length - room) : bare.slice(0, room);
  return [...ids.slice(0, before), ...kept, ...ids.slice(before + bare.length)];
}

function tensor(dtype, values, dims) {
  const kind = ARRAYS[dtype];
  if (!kind) throw new Error(`this check knows no ${dtype}`);
  const numbers = kind === BigInt64Array ? BigInt64Array.from(values, BigInt) : kind.from(values);
  return new ort.Tensor(dtype === "float" ? "float32" : dtype, numbers, dims);
}

// One pass over `ids` after the `length` tokens of the cache `past`.
async function forward(session, ids, length = 0, past = {}) {
  const whole = length + ids.length;
  const values = {
    input_ids: ids,
    attention_mask: new Array(whole).fill(1),
    token_type_ids: new Array(ids.length).fill(0),
    position_ids: ids.map((_, i) => length + i),
  };
  const feeds = {};
  for (const { name, dtype, shape } of facts.inputs) {
    if (past[name]) feeds[name] = past[name];
    else if (values[name]) feeds[name] = tensor(dtype, values[name], [1, values[name].length]);
    else feeds[name] = tensor(dtype, [], [1, shape[1], 0, shape[3]]); // an empty past
  }
  const found = await session.run(feeds);
  const present = {};
  for (const { name } of facts.outputs.slice(1)) present[name.replace("present", "past_key_values")] = found[name];
  return { logits: found[facts.outputs[0].name], present };
}

const last = (logits) => logits.data.slice(logits.data.length - logits.dims[logits.dims.length - 1]);
const likeliest = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

async function complete(session, ids, count) {
  const made = [];
  let { logits, present } = await forward(session, ids);
  for (;;) {
    made.push(likeliest(last(logits)));
    if (made.length >= count || ids.length + made.length > facts.max_length) return made;
    ({ logits, present } = await forward(session, [made[made.length - 1]], ids.length + made.length - 1, present));
  }
}

async function golden(session) {
  const failures = [];
  let largest = 0;
  const same = [];
  const rows = read("golden.jsonl").split("\n").filter(Boolean).map((line) => JSON.parse(line));
  for (const [index, row] of rows.entries()) {
    const ids = encode(row.text);
    if (JSON.stringify(ids) !== JSON.stringify(row.input_ids)) {
      failures.push({ row: index + 1, what: "other token ids" });
      continue;
    }
    const values = last((await forward(session, ids)).logits);
    const pairs = facts.generation ? row.logits : row.logits.map((value, i) => [i, value]);
    const scale = Math.max(1, ...pairs.map(([, value]) => Math.abs(value)));
    const error = Math.max(...pairs.map(([i, value]) => Math.abs(values[i] - value))) / scale;
    largest = Math.max(largest, error);
    if (!(error <= facts.tolerance)) failures.push({ row: index + 1, what: "other logits", error });
    if (row.completion) {
      same.push(JSON.stringify(await complete(session, ids, row.completion.length)) === JSON.stringify(row.completion));
      if (!same[same.length - 1] && facts.scheme === "fp32") failures.push({ row: index + 1, what: "another continuation" });
    }
  }
  return {
    passed: rows.length > 0 && failures.length === 0,
    rows: rows.length,
    max_error: largest,
    tolerance: facts.tolerance,
    completions: { rows: same.length, same: same.filter(Boolean).length },
    failures,
    versions: { node: process.versions.node, "onnxruntime-web": ort.env.versions.web },
  };
}

async function main() {
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(path.join(bundle, facts.model), { executionProviders: ["wasm"] });
  const found = await golden(session);
  console.log(JSON.stringify(found));
  process.exitCode = found.passed ? 0 : 4;
}

main().catch((error) => {
  console.error(`error: ${error.message || error}`);
  process.exitCode = 2;
});
