// An app that signs its users in with better-auth, for the tests: node better-auth.mjs ORIGIN. ORIGIN is where the users
// find it. It prints its URL.

import { betterAuth } from 'better-auth'
import { memoryAdapter } from 'better-auth/adapters/memory'
import { toNodeHandler } from 'better-auth/node'
import express from 'express'
import { options } from './guide.mjs'

const [origin] = process.argv.slice(2)

const auth = betterAuth({
  baseURL: origin,
  secret: 'only for the tests, and long enough for any of them',
  database: memoryAdapter({ user: [], session: [], account: [], verification: [] }),
  emailAndPassword: { enabled: true },
  telemetry: { enabled: false },
  // The app, not the user, says which workspaces a user has.
  databaseHooks: {
    user: {
      create: {
        before: async (user) => ({
          data: { ...user, workspaces: user.email.startsWith('ada@') ? ['ws_1'] : [] },
        }),
      },
    },
  },
  ...options('user'),
})

const app = express()
app.use('/api/auth', toNodeHandler(auth))

const server = app.listen(0, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`)
})
