// An app that keeps its users signed in by a cookie with a token that it signs, which the gate reads, too.
import express from "express";
import { createProxyMiddleware } from "http-proxy-middleware";
import { SignJWT } from "jose";

const port = process.env.PORT ?? 3000;
const secret = new TextEncoder().encode(process.env.APP_JWT_SECRET);
const app = express();

// In production, your web server does this. `Host` stays as it is, so that the gate recognizes its own origin.
const target = process.env.GATE_URL ?? "http://127.0.0.1:8080";
app.use(createProxyMiddleware({ pathFilter: "/api/imgwire", target, xfwd: true }));

app.use(express.static("public"));

// Stands for your sign-in: anyone may be Ada, who is a member of one workspace.
app.post("/sign-in", async (request, response) => {
  const token = await new SignJWT({ workspaces: ["ws_1"] })
    .setProtectedHeader({ alg: "HS256" })
    .setSubject("user_ada")
    .setAudience("imgwire-gate")
    .setExpirationTime("1h")
    .sign(secret);
  response.cookie("app_session", token, { httpOnly: true, sameSite: "lax" }).sendStatus(204);
});

app.post("/sign-out", (request, response) => {
  response.clearCookie("app_session").sendStatus(204);
});

// What the page needs to upload: both values are public.
app.get("/imgwire.json", (request, response) => {
  response.json({
    url: process.env.IMGWIRE_URL ?? "https://api.imgwire.dev",
    clientKey: process.env.IMGWIRE_CLIENT_KEY,
  });
});

app.listen(port, "127.0.0.1", () => console.log(`http://localhost:${port}`));
