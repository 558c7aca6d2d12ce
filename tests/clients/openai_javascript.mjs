// The official JavaScript client against what stands behind the base URL of its first argument.
// Does one thing per name given after it, and prints {"name": result} as one line of JSON.
import OpenAI from "openai";

const [baseURL, apiKey, ...names] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const say = (content) => [{ role: "user", content }];
const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather of a city.",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];

async function chat(model) {
  const { data, response } = await client.chat.completions
    .create({ model, messages: say("What is the capital of France? Grüße 🌍") })
    .withResponse();
  return { text: data.choices[0].message.content, servedBy: response.headers.get("x-nexus-backend") };
}

async function stream(model) {
  const parts = [];
  const chunks = await client.chat.completions.create({ model, messages: say("Count."), stream: true });
  for await (const chunk of chunks) parts.push(chunk.choices[0]?.delta?.content ?? "");
  return { text: parts.join(""), chunks: parts.length };
}

async function abandoned(model) {
  const chunks = await client.chat.completions.create({ model, messages: say("Count."), stream: true });
  for await (const chunk of chunks) if (chunk.choices[0]?.delta?.content) break;
  return { aborted: chunks.controller.signal.aborted };
}

async function tool(model) {
  const runner = client.chat.completions.stream({ model, messages: say("The weather in Paris?"), tools });
  const call = (await runner.finalChatCompletion()).choices[0].message.tool_calls[0];
  return { name: call.function.name, city: typeof JSON.parse(call.function.arguments).city };
}

async function embeddings(model) {
  const answer = await client.embeddings.create({ model, input: ["one", "two"] });
  return answer.data.map((each) => each.embedding.length);
}

async function responses(model) {
  const whole = await client.responses.create({ model, input: "What is the capital of France?" });
  const kinds = [];
  const events = await client.responses.create({ model, input: "Again?", stream: true });
  for await (const event of events) kinds.push(event.type);
  return { text: whole.output_text, first: kinds[0], last: kinds.at(-1) };
}

async function models() {
  const found = [];
  for await (const model of client.models.list()) found.push(model.id);
  return found;
}

async function unknown() {
  try {
    await client.chat.completions.create({ model: "no-such-model", messages: say("?") });
  } catch (error) {
    const { status, code, type, message } = error;
    return { kind: error.constructor.name, status, code, type, message };
  }
  return {};
}

const known = { chat, stream, abandoned, tool, embeddings, responses, models, unknown };
const results = {};
for (const name of names) {
  const [what, model] = name.split("=");
  results[name] = await known[what](model);
}
console.log(JSON.stringify(results));
