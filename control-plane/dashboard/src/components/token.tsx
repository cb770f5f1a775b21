// Asks for the token of whoever may do more than look.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { setToken } from "../state/token";

export interface TokenFormProps {
  title: string;
  /** Why the last one did not do; empty where there was none. */
  why: string;
  /** The least that does: a viewer reads, an operator changes documents and watches requests, too. */
  role?: "viewer" | "operator";
  /** What needs it. */
  children: ComponentChildren;
  /** Goes on with what needed it. */
  given?: (token: string) => void;
}

export function TokenForm({ title, why, role = "operator", children, given }: TokenFormProps) {
  const [draft, setDraft] = useState("");
  return (
    <form
      class="empty token-form"
      aria-labelledby="token-title"
      onSubmit={(event) => {
        event.preventDefault();
        const token = draft.trim();
        if (token === "") return;
        setToken(token);
        given?.(token);
      }}
    >
      <h2 id="token-title">{title}</h2>
      {children}
      {why !== "" && (
        <p class="fault" role="alert">
          {why}
        </p>
      )}
      <label for="token">
        Token
        <input
          id="token"
          type="password"
          required
          autocomplete="off"
          spellcheck={false}
          value={draft}
          onInput={(event) => setDraft(event.currentTarget.value)}
        />
      </label>
      <button type="submit">Use this token</button>
      {role === "viewer" && (
        <>
          <p class="note">To make one that reads:</p>
          <pre>pillion token create --role viewer --ttl 8h</pre>
        </>
      )}
      <p class="note">To make one that changes documents and watches requests, too:</p>
      <pre>pillion token create --role operator --ttl 8h</pre>
    </form>
  );
}
