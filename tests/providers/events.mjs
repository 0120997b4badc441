// The app of docs/events.md: verifies events, and shows those that it has accepted.

import { readFileSync } from 'node:fs'
import express from 'express'
import { Webhook } from 'standardwebhooks'

process.env.GATE_EVENTS_SECRET = process.argv[2]
const page = readFileSync(new URL('../../docs/events.md', import.meta.url), 'utf8')
const block = page.split('```js\n')[1].split('```')[0]
const code = block.split('\n').filter((line) => !line.startsWith('import ')).join('\n')

const accepted = []
const handle = async (id, event) => accepted.push({ id, event })
const app = new Function('express', 'Webhook', 'handle', `${code}\nreturn app`)(express, Webhook, handle)
app.get('/accepted', (request, response) => response.json(accepted))
const server = app.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))
