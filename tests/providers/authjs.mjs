// An app that signs its users in with Auth.js (the npm package @auth/express), for the tests. It prints its URL.

import { ExpressAuth } from '@auth/express'
import Credentials from '@auth/express/providers/credentials'
import express from 'express'

const people = { ada: { id: 'user_ada', name: 'Ada', workspaces: ['ws_1'] } }

const app = express()
app.use(
  '/api/auth',
  ExpressAuth({
    secret: 'only for the tests, and long enough for any of them',
    trustHost: true,
    providers: [
      Credentials({
        credentials: { name: {} },
        authorize: ({ name }) => people[name] ?? null,
      }),
    ],
    // As the Auth.js guide "extending the session" does it: the session tells the user's id and more.
    callbacks: {
      jwt: ({ token, user }) => (user ? { ...token, id: user.id, workspaces: user.workspaces } : token),
      session: ({ session, token }) => ({
        ...session,
        user: { ...session.user, id: token.id, workspaces: token.workspaces },
      }),
    },
  }),
)

const server = app.listen(0, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`)
})
