// Syntax colours of TOML, and where things are in a config.

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

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** The number of the line where a policy begins; `undefined` if the text has no such policy. */
export function lineOfPolicy(text, name) {
  const word = `["']?${escaped(name)}["']?`;
  const lines = text.split("\n");
  const patterns = [`^\\s*\\[\\s*policies\\s*\\.\\s*${word}\\s*[\\].]`, `^\\s*policies\\s*\\.\\s*${word}\\s*[=.]`, `^\\s*${word}\\s*=\\s*\\{`];
  for (const pattern of patterns) {
    const line = lines.findIndex((text) => new RegExp(pattern).test(text));
    if (line >= 0) return line + 1;
  }
  return undefined;
}
