// One run of the Vercel AI SDK, as test_ai_sdk.py asks for it: a JSON order in, a JSON report out.
//
//   {"api": "chat" | "responses" | "compatible" | "messages", "url", "key", "model", "prompt",
//    "stream": bool, "tools": bool, "schema": bool}
//   → {"text", "object", "reasoning", "steps": [{"calls": [[name, input]], "results": [output]}],
//      "pieces": number of text deltas, "usage", "error"}

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { readFileSync } from "node:fs";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false; // it would say on stdout that it doesn't know the model
const order = JSON.parse(readFileSync(0, "utf8"));

function model() {
  const baseURL = `${order.url}/v1`;
  const settings = { baseURL, apiKey: order.key };
  switch (order.api) {
    case "chat":
      return createOpenAI(settings).chat(order.model);
    case "responses":
      return createOpenAI(settings).responses(order.model);
    case "messages":
      return createAnthropic(settings)(order.model);
    default:
      return createOpenAICompatible({
        name: "gateway",
        includeUsage: true,
        supportsStructuredOutputs: true,
        ...settings,
      })(order.model);
  }
}

const tools = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      if (city === "Atlantis") throw new Error("There is no such city.");
      return `Sunny in ${city}.`;
    },
  }),
  get_time: tool({
    description: "The time in a city.",
    inputSchema: z.object({ city: z.string(), twelve_hours: z.boolean().optional() }),
    execute: async ({ twelve_hours }) => (twelve_hours ? "12 PM" : "12:00"),
  }),
};

const request = {
  model: model(),
  prompt: order.prompt,
  maxRetries: 0,
  stopWhen: stepCountIs(5),
  ...(order.tools && { tools }),
  ...(order.schema && {
    output: Output.object({ schema: z.object({ city: z.string(), degrees: z.number() }) }),
  }),
};

async function streamed() {
  let pieces = 0;
  const result = streamText({ ...request, onError: () => {} });
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") pieces += 1;
    if (part.type === "error") throw part.error;
  }
  return {
    pieces,
    text: await result.text,
    reasoning: (await result.steps).map((step) => step.reasoningText),
    steps: await result.steps,
    usage: await result.totalUsage,
    object: order.schema ? await result.output : undefined,
  };
}

async function whole() {
  const result = await generateText(request);
  return {
    pieces: 0,
    text: result.text,
    reasoning: result.steps.map((step) => step.reasoningText),
    steps: result.steps,
    usage: result.totalUsage,
    object: order.schema ? result.output : undefined,
  };
}

const report = await (order.stream ? streamed() : whole()).catch((error) => ({
  error: { name: error.name, status: error.statusCode, message: error.message },
  steps: [],
}));
report.steps = report.steps.map((step) => ({
  calls: step.toolCalls.map((call) => [call.toolName, call.input]),
  results: step.content
    .filter((part) => part.type === "tool-result" || part.type === "tool-error")
    .map((part) => (part.type === "tool-result" ? part.output : String(part.error))),
}));
console.log(JSON.stringify(report));
