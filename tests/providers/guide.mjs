// The code blocks of the guides in docs/identities.md, for the apps of the tests.

import { readFileSync } from 'node:fs'

const guides = readFileSync(new URL('../../docs/identities.md', import.meta.url), 'utf8')

/** The object that a guide's block of JavaScript writes as `{ ... }` from the member `name` on. */
export function options(name) {
  const blocks = guides.split('```js\n').slice(1).map((rest) => rest.split('```')[0])
  const block = blocks.find((block) => block.startsWith(`${name}: {`))
  return new Function(`return { ${block} }`)()
}
