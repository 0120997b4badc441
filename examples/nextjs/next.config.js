/**
 * Requests for tokens and uploads go to the gate. Next.js passes on cookies and `X-Forwarded-For`. The build reads this file, so `GATE_URL`
 * must be set there.
 */
export default {
  async rewrites() {
    const gate = process.env.GATE_URL ?? "http://127.0.0.1:8080";
    return [{ source: "/api/imgwire/:path*", destination: `${gate}/api/imgwire/:path*` }];
  },
};
