import { SignJWT } from "jose";
import { defineConfig } from "vite";

/** Stands for your identity provider: it signs a token for Ada, a member of one workspace. */
const signIn = {
  name: "sign-in",
  configureServer(server) {
    const secret = new TextEncoder().encode(process.env.APP_JWT_SECRET);
    server.middlewares.use("/sign-in", async (request, response) => {
      const token = await new SignJWT({ workspaces: ["ws_1"] })
        .setProtectedHeader({ alg: "HS256" })
        .setSubject("user_ada")
        .setAudience("imgwire-gate")
        .setExpirationTime("15m")
        .sign(secret);
      response.setHeader("Content-Type", "application/json").end(JSON.stringify({ token }));
    });
  },
};

export default defineConfig({
  plugins: [signIn],
  envPrefix: ["VITE_", "IMGWIRE_URL", "IMGWIRE_CLIENT_KEY"],
  server: {
    // In production, your web server does the same.
    proxy: { "/api/imgwire": process.env.GATE_URL ?? "http://127.0.0.1:8080" },
  },
});
