// The code blocks of the guides in docs/providers, for the apps of the tests.

import { readFileSync, readdirSync } from 'node:fs'

const folder = new URL('../../docs/providers/', import.meta.url)
const guides = readdirSync(folder)
  .filter((name) => name.endsWith('.md'))
  .map((name) => readFileSync(new URL(name, folder), 'utf8'))
  .join('\n')

/** The object that a guide's block of JavaScript writes as `{ ... }` from the member `name` on. */
export function options(name) {
  const blocks = guides.split('```js\n').slice(1).map((rest) => rest.split('```')[0])
  const block = blocks.find((block) => block.startsWith(`${name}: {`))
  return new Function(`return { ${block} }`)()
}
