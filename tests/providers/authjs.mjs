// An app that signs its users in with Auth.js (the npm package @auth/express), for the tests: node authjs.mjs KIND.
// KIND is `jwt`, whose users give a name, or `database`, whose users get a link by mail. It prints its URL. A proxy in
// front of it may say by X-Forwarded-Proto that users come over https.

import { randomUUID } from 'node:crypto'
import { ExpressAuth } from '@auth/express'
import Credentials from '@auth/express/providers/credentials'
import express from 'express'
import { options } from './guide.mjs'

const [kind = 'jwt'] = process.argv.slice(2)

const people = {
  ada: { name: 'Ada', workspaces: ['ws_1'] },
  bob: { name: 'Bob', workspaces: [] },
  // Her session does not fit into one cookie.
  grace: { name: 'Grace', workspaces: Array.from({ length: 250 }, (_, number) => `workspace_${number + 1}`) },
}

const byName = Credentials({
  credentials: { name: {} },
  authorize: ({ name }) => people[name] && { id: `user_${name}`, ...people[name] },
})

let mail
const byMail = {
  id: 'mail',
  type: 'email',
  name: 'Mail',
  from: 'app@example.com',
  maxAge: 3600,
  sendVerificationRequest: ({ url }) => {
    mail = url
  },
}

/** An adapter of Auth.js that keeps everything in memory. */
function memory() {
  const users = new Map()
  const sessions = new Map()
  const links = new Map()
  const withEmail = (email) => [...users.values()].find((user) => user.email === email) ?? null
  return {
    createUser: async (user) => {
      const name = user.email.split('@')[0]
      const created = { ...user, id: `user_${name}`, ...people[name], passwordHash: 'only the app knows it' }
      users.set(created.id, created)
      return created
    },
    getUser: async (id) => users.get(id) ?? null,
    getUserByEmail: async (email) => withEmail(email),
    getUserByAccount: async () => null,
    updateUser: async (user) => {
      users.set(user.id, { ...users.get(user.id), ...user })
      return users.get(user.id)
    },
    linkAccount: async () => {},
    createSession: async (session) => {
      sessions.set(session.sessionToken, { id: randomUUID(), ...session })
      return session
    },
    getSessionAndUser: async (sessionToken) => {
      const session = sessions.get(sessionToken)
      return session ? { session, user: users.get(session.userId) } : null
    },
    updateSession: async (session) => {
      sessions.set(session.sessionToken, { ...sessions.get(session.sessionToken), ...session })
      return sessions.get(session.sessionToken)
    },
    deleteSession: async (sessionToken) => {
      sessions.delete(sessionToken)
    },
    createVerificationToken: async (link) => {
      links.set(link.token, link)
      return link
    },
    useVerificationToken: async ({ token }) => {
      const link = links.get(token) ?? null
      links.delete(token)
      return link
    },
  }
}

const app = express()
app.set('trust proxy', 'loopback')
app.get('/api/auth/test/mail', (_, response) => response.send(mail))
app.use(
  '/api/auth',
  ExpressAuth({
    secret: 'only for the tests, and long enough for any of them',
    trustHost: true,
    ...(kind === 'jwt'
      ? { providers: [byName] }
      : { providers: [byMail], adapter: memory(), session: { strategy: 'database' } }),
    ...options('callbacks'),
  }),
)

const server = app.listen(0, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}`)
})
