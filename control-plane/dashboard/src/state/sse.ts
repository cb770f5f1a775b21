// Server-sent events read by hand: the browser's own reader cannot carry a token.

export interface ServerEvent {
  name: string;
  data: string;
}

/** Takes a stream in pieces, however they are cut; gives the events that are whole. */
export function eventReader(): (text: string) => ServerEvent[] {
  let unread = "";
  let name = "";
  let data: string[] = [];
  return (text) => {
    const lines = (unread + text).split("\n");
    unread = lines.pop() ?? "";
    const events: ServerEvent[] = [];
    for (const raw of lines) {
      const line = raw.replace(/\r$/, "");
      if (line === "") {
        if (data.length > 0) events.push({ name, data: data.join("\n") });
        name = "";
        data = [];
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      // What begins with a colon is a comment.
      if (field === "event") name = value;
      else if (field === "data") data.push(value);
    }
    return events;
  };
}
