// What to watch. It is put into the address, so that it can be shared and gone back from.
import { useState } from "preact/hooks";
import { serviceName } from "../../format";
import { useLive } from "../../state/store";
import { isNode } from "../../topology/graph";
import { USUAL, type Watch, liveHref, usualOf } from "./watch";

export function WatchForm({ watch }: { watch: Watch }) {
  const [draft, setDraft] = useState(watch);
  const services = (useLive().mesh?.services ?? []).map((service) => service.name).filter(isNode);
  const namespaces = [...new Set(services.map((name) => serviceName(name).namespace))];
  const isService = /^(svc|service|services)\/|^[^/]+\.[^/]+$/.test(draft.resource);
  const field = (name: Exclude<keyof Watch, "errors">) => ({
    id: `live-${name}`,
    name,
    value: draft[name],
    onInput: (event: { currentTarget: { value: string } }) => {
      const { value } = event.currentTarget;
      setDraft((known) => {
        const changed = { ...known, [name]: value };
        // What nobody has chosen follows what is usual for whom.
        const follows = name === "resource" && known.direction === usualOf(known.resource).direction;
        return follows ? { ...changed, direction: usualOf(value.trim()).direction } : changed;
      });
    },
  });
  const text = { autocomplete: "off", spellcheck: false, autocapitalize: "off" } as const;
  const seenBy = isService ? draft.seenBy : "workloads";
  return (
    <form
      class="ask-form live-form"
      aria-label="What to watch"
      onSubmit={(event) => {
        event.preventDefault();
        location.hash = liveHref({ ...draft, seenBy });
      }}
    >
      <label for="live-resource">
        Of
        <input {...field("resource")} {...text} required list="live-resources" placeholder="svc/payments.demo" />
      </label>
      <label for="live-seenBy">
        Told by
        <select {...field("seenBy")} value={seenBy} disabled={!isService}>
          <option value="workloads">its own sidecars</option>
          <option value="callers">its callers' sidecars</option>
        </select>
      </label>
      <label for="live-direction">
        Direction
        <select {...field("direction")} value={seenBy === "callers" ? "outbound" : draft.direction} disabled={seenBy === "callers"}>
          <option value="outbound">sent</option>
          <option value="inbound">received</option>
          <option value="both">both</option>
        </select>
      </label>
      <label for="live-method">
        Method
        <input {...field("method")} {...text} placeholder="any" />
      </label>
      <label for="live-path">
        Path begins with
        <input {...field("path")} {...text} placeholder="/" />
      </label>
      <label for="live-status">
        Status
        <input {...field("status")} {...text} placeholder="5xx, 429, grpc-14" />
      </label>
      <label for="live-from">
        From
        <input {...field("from")} {...text} list="live-parties" placeholder="anybody" />
      </label>
      <label for="live-to">
        To
        <input {...field("to")} {...text} list="live-parties" placeholder="anybody" />
      </label>
      <label for="live-minDuration">
        Took at least
        <input {...field("minDuration")} {...text} placeholder="250ms" />
      </label>
      <label for="live-errors" class="tick">
        <input
          id="live-errors"
          type="checkbox"
          checked={draft.errors}
          onChange={(event) => {
            const errors = event.currentTarget.checked;
            setDraft((known) => ({ ...known, errors }));
          }}
        />
        Only what failed
      </label>
      <div class="live-go">
        <a href={liveHref(USUAL)}>All</a>
        <button type="submit">Watch</button>
      </div>
      <datalist id="live-resources">
        <option value="mesh" />
        {namespaces.map((name) => (
          <option key={name} value={`ns/${name}`} />
        ))}
        {services.map((name) => (
          <option key={name} value={`svc/${name}`} />
        ))}
      </datalist>
      <datalist id="live-parties">
        {services.map((name) => (
          <option key={name} value={name} />
        ))}
      </datalist>
    </form>
  );
}
