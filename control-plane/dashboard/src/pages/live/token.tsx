// Asks for the token that watching needs.
import { useState } from "preact/hooks";
import { setToken } from "../../state/token";

export function TokenForm({ why }: { why: string }) {
  const [draft, setDraft] = useState("");
  return (
    <form
      class="empty token-form"
      aria-labelledby="token-title"
      onSubmit={(event) => {
        event.preventDefault();
        const token = draft.trim();
        if (token !== "") setToken(token);
      }}
    >
      <h2 id="token-title">Watching live requests needs a token</h2>
      <p>
        Paths and headers may tell what not everybody is to know, so a token with the role operator is needed, also on this machine. It is
        kept in this tab only.
      </p>
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
      <p class="note">To make one:</p>
      <pre>pillion token create --role operator --ttl 8h</pre>
    </form>
  );
}
