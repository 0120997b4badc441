import { auth, signIn, signOut } from "../auth.js";
import { eventsOf } from "../lib/events.js";
import Album from "./album.js";
import Upload from "./upload.js";

// Read when a request comes, so that one build runs anywhere.
export const dynamic = "force-dynamic";

export default async function Page() {
  const session = await auth();
  if (!session) {
    const signInAsAda = async () => {
      "use server";
      await signIn("credentials", { name: "ada", redirectTo: "/" });
    };
    return (
      <form action={signInAsAda}>
        <button>Sign in as Ada</button>
      </form>
    );
  }
  const leave = async () => {
    "use server";
    await signOut({ redirectTo: "/" });
  };
  const imgwire = {
    url: process.env.IMGWIRE_URL ?? "https://api.imgwire.dev",
    clientKey: process.env.IMGWIRE_CLIENT_KEY,
  };
  return (
    <main>
      <p>Signed in as {session.user.name}</p>
      <h2>With an upload token</h2>
      <Upload imgwire={imgwire} />
      <Album />
      <h2>Events of the gate</h2>
      <ol aria-label="Events">
        {eventsOf(session.user.id).map(({ type, id }) => (
          <li key={id}>{type}</li>
        ))}
      </ol>
      <form action={leave}>
        <button>Sign out</button>
      </form>
    </main>
  );
}
