// Syntax colours of TOML, and where things are in a config.
import { unquoted } from "./text.js";

const TOKENS = new RegExp(
  [
    /(?<comment>#[^\n]*)/,
    /(?<string>"""[^]*?"""|'''[^]*?'''|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')/,
    /(?<table>(?<=^[ \t]*)\[\[?[^\]\n]*\]?\])/,
    /(?<key>(?<=^[ \t]*|[{,][ \t]*)(?:[\w.-]+)(?=[ \t]*=))/,
    /(?<value>\b(?:true|false|[+-]?\d[\w.:+-]*)\b)/,
  ]
    .map((pattern) => pattern.source)
    .join("|"),
  "gm",
);

/** The lines of a text, each a list of `[class, text]`. */
export function highlight(text) {
  const lines = [[]];
  const add = (kind, part) => {
    for (const [index, piece] of part.split("\n").entries()) {
      if (index > 0) lines.push([]);
      if (piece) lines.at(-1).push([kind, piece]);
    }
  };
  let at = 0;
  for (const match of text.matchAll(TOKENS)) {
    add("", text.slice(at, match.index));
    const kind = Object.entries(match.groups).find(([, part]) => part !== undefined)[0];
    add(kind, match[0]);
    at = match.index + match[0].length;
  }
  add("", text.slice(at));
  return lines;
}

/** The parts of the key that a text begins with. */
function keyOf(text) {
  const part = /\s*(?:([\w-]+)|'([^']*)'|("(?:[^"\\]|\\.)*"))\s*(\.?)/y;
  const parts = [];
  for (let found = part.exec(text); found; found = found[4] && part.exec(text)) {
    parts.push(found[1] ?? found[2] ?? unquoted(found[3]));
  }
  return parts;
}

/** The number of the line where a policy begins; `undefined` if the text has no such policy. */
export function lineOfPolicy(text, name) {
  let table = [];
  const line = text.split("\n").findIndex((text) => {
    const [, brackets, rest] = text.match(/^\s*(\[*)(.*)/);
    if (brackets) table = [];
    const key = [...table, ...keyOf(rest)];
    if (brackets) table = key;
    const isInline = key.length === 1 && rest.includes("{") && rest.includes(name);
    return key[0] === "policies" && (key[1] === name || isInline);
  });
  return line < 0 ? undefined : line + 1;
}
