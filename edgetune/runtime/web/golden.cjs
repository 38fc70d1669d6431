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
const asks = facts.asks || ["text"];
const prefix = facts.generation ? facts.generation.prefix : "";
const suffix = facts.generation ? facts.generation.suffix : "";
const settings = fs.existsSync(path.join(bundle, "tokenizer_config.json")) ? JSON.parse(read("tokenizer_config.json")) : {};
const tokenizer = new Tokenizer(JSON.parse(read("tokenizer.json")), settings);
const ARRAYS = { int64: BigInt64Array, int32: Int32Array, float: Float32Array };

// How many tokens of a text and of the one beside it stay when `room` is too little: as tokenizers' "longest_first", or "only_second"
// for a question and its context.
function shares(first, second, room) {
  if (asks[0] === "question") return [first, Math.min(second, room - first)];
  if (first + second <= room) return [first, second];
  const less = Math.min(first, second);
  const small = less > room ? Math.floor(room / 2) : less;
  const large = less > room ? less : Math.max(less, room - less);
  const halves = small + large > room ? [Math.floor(room / 2), Math.floor(room / 2) + (room % 2)] : [small, large];
  return first > second ? halves.reverse() : halves;
}

const found = (ids, part, from) => {
  for (let at = from; at + part.length <= ids.length; at++) if (part.every((id, i) => ids[at + i] === id)) return at;
  throw new Error("the tokens of a text are not among those of the whole");
};

// The inputs as in training. transformers.js would cut the last special token off with the rest: here the texts are cut, and it stays.
function encode(row) {
  if (facts.generation) return { input_ids: tokenizer.encode(prefix + row.text.trim() + suffix, { add_special_tokens: false }).ids };
  const [text, text_pair] = asks.map((name) => row[name]);
  const whole = tokenizer.encode(text, { text_pair, return_token_type_ids: true });
  const ids = whole.ids;
  const types = whole.token_type_ids;
  if (ids.length <= facts.max_length) return { input_ids: ids, token_type_ids: types };
  const bare = [text, text_pair].map((part) => (part === undefined ? [] : tokenizer.encode(part, { add_special_tokens: false }).ids));
  const room = facts.max_length - (ids.length - bare[0].length - bare[1].length);
  const kept = text_pair === undefined ? [room, 0] : shares(bare[0].length, bare[1].length, room);
  const dropped = new Set();
  let at = 0;
  for (const [i, part] of bare.entries()) {
    at = found(ids, part, at);
    const gone = facts.truncation_side === "left" ? at : at + kept[i];
    for (let k = 0; k < part.length - kept[i]; k++) dropped.add(gone + k);
    at += part.length;
  }
  const stays = (values) => values.filter((_, i) => !dropped.has(i));
  return { input_ids: stays(ids), token_type_ids: stays(types) };
}

function tensor(dtype, values, dims) {
  const kind = ARRAYS[dtype];
  if (!kind) throw new Error(`this check knows no ${dtype}`);
  const numbers = kind === BigInt64Array ? BigInt64Array.from(values, BigInt) : kind.from(values);
  return new ort.Tensor(dtype === "float" ? "float32" : dtype, numbers, dims);
}

// One pass over the inputs of one row, after the `length` tokens of the cache `past`.
async function forward(session, row, length = 0, past = {}) {
  const ids = row.input_ids;
  const values = {
    attention_mask: new Array(length + ids.length).fill(1),
    token_type_ids: new Array(ids.length).fill(0),
    position_ids: ids.map((_, i) => length + i),
    ...row,
  };
  const feeds = {};
  for (const { name, dtype, shape } of facts.inputs) {
    if (past[name]) feeds[name] = past[name];
    else if (values[name]) feeds[name] = tensor(dtype, values[name], [1, values[name].length]);
    else feeds[name] = tensor(dtype, [], [1, shape[1], 0, shape[3]]); // an empty past
  }
  const outputs = await session.run(feeds);
  const present = {};
  for (const name of Object.keys(outputs).filter((name) => name.startsWith("present."))) {
    present[name.replace("present", "past_key_values")] = outputs[name];
    delete outputs[name];
  }
  return { outputs, present };
}

// [found, expected] values. `expected` has one for each place of an array of the dimensions `dims`, or [place, what is there] for some.
function compared(data, dims, expected) {
  const size = dims.slice(1).reduce((a, b) => a * b, 1);
  return expected.flatMap((item, number) => {
    const [place, value] = Array.isArray(item) ? item : [number, item];
    const part = data.slice(place * size, (place + 1) * size);
    return Array.isArray(value) ? compared(part, dims.slice(1), value) : [[part[0], value]];
  });
}

const last = ({ data, dims }) => data.slice(data.length - dims[dims.length - 1]);
const likeliest = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

async function complete(session, row, count) {
  const made = [];
  const before = row.input_ids.length;
  let { outputs, present } = await forward(session, row);
  for (;;) {
    made.push(likeliest(last(outputs.logits)));
    if (made.length >= count || before + made.length > facts.max_length) return made;
    ({ outputs, present } = await forward(session, { input_ids: made.slice(-1) }, before + made.length - 1, present));
  }
}

async function golden(session) {
  const failures = [];
  let largest = 0;
  let changed = 0;
  const tolerance = facts.golden.elsewhere; // another architecture than the one that wrote the rows
  const same = [];
  const rows = read("golden.jsonl").split("\n").filter(Boolean).map((line) => JSON.parse(line));
  for (const [index, row] of rows.entries()) {
    const made = encode(row);
    const inputs = facts.inputs.map(({ name }) => name).filter((name) => name in row);
    if (inputs.some((name) => JSON.stringify(made[name]) !== JSON.stringify(row[name]))) {
      failures.push({ row: index + 1, what: "other token ids" });
      continue;
    }
    const { outputs } = await forward(session, made);
    for (const [name, { data, dims }] of Object.entries(outputs)) {
      const pairs = facts.generation
        ? compared(last({ data, dims }), dims.slice(-1), row[name])
        : compared(data, dims.slice(1), row[name]);
      const scale = Math.max(1, ...pairs.map(([, value]) => Math.abs(value)));
      const error = Math.max(...pairs.map(([here, value]) => Math.abs(here - value))) / scale;
      largest = Math.max(largest, error);
      if (facts.generation || (name === "logits" && dims.length === 2)) {
        changed += likeliest(pairs.map(([here]) => here)) !== likeliest(pairs.map(([, value]) => value)) ? 1 : 0;
      }
      if (!(error <= tolerance)) failures.push({ row: index + 1, what: `other ${name}`, error });
    }
    if (row.completion) {
      same.push(JSON.stringify(await complete(session, made, row.completion.length)) === JSON.stringify(row.completion));
      if (!same[same.length - 1] && facts.scheme === "fp32") failures.push({ row: index + 1, what: "another continuation" });
    }
  }
  if (changed > Math.max(1, facts.golden.changed * rows.length)) {
    failures.push({ what: "other answers", rows: changed, allowed: facts.golden.changed });
  }
  return {
    passed: rows.length > 0 && failures.length === 0,
    rows: rows.length,
    max_error: largest,
    tolerance,
    native: false,
    changed,
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
