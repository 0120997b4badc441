import NextAuth from "next-auth";
import Credentials from "next-auth/providers/credentials";

// Stands for your users: anyone may be Ada, who is a member of one workspace.
const ada = { id: "user_ada", name: "Ada", workspaces: ["ws_1"] };

export const { handlers, auth, signIn, signOut } = NextAuth({
  trustHost: true,
  session: { strategy: "jwt" },
  providers: [
    Credentials({
      credentials: { name: {} },
      authorize: ({ name }) => (name === "ada" ? ada : null),
    }),
  ],
  callbacks: {
    jwt: ({ token, user }) => (user ? { ...token, workspaces: user.workspaces } : token),
    // What the gate reads: the user's id and workspaces.
    session: ({ session, token }) => ({
      ...session,
      user: { ...session.user, id: token.sub, workspaces: token.workspaces },
    }),
  },
});
