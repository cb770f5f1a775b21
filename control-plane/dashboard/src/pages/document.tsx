// One document as it is written, with what the control plane says of it.
import { Empty } from "../components/parts";
import { editHref, serviceHref } from "../route";
import { useResource } from "../state/resource";
import { toYaml } from "../yaml";

interface Document {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string };
  spec?: { parentRefs?: Reference[]; targetRefs?: Reference[] };
}

interface Reference {
  kind?: string;
  name: string;
  namespace?: string;
}

export interface DocumentPageProps {
  plural: string;
  namespace: string;
  name: string;
}

export function DocumentPage({ plural, namespace, name }: DocumentPageProps) {
  const path = [namespace, plural, name].map(encodeURIComponent);
  const { data, fault, absent } = useResource<Document>(`v1/namespaces/${path.join("/")}`);
  if (data === null) {
    if (absent) return <Empty title={`There is no ${plural} ${namespace}/${name}`}>It may have been deleted since this link was made.</Empty>;
    return <p class="waiting">{fault ?? "Loading…"}</p>;
  }
  const targets = [...(data.spec?.parentRefs ?? []), ...(data.spec?.targetRefs ?? [])].filter(({ kind }) => kind === undefined || kind === "Service");
  return (
    <>
      <div class="page-head">
        <h1>
          {name} <span class="subject">{namespace}</span>
          <span class="badge kind">{data.kind}</span>
        </h1>
        {targets.length > 0 && (
          <p class="note document-for">
            for{" "}
            {targets.map((target, index) => (
              <span key={`${target.namespace} ${target.name}`}>
                {index > 0 && ", "}
                <a href={serviceHref(`${target.name}.${target.namespace ?? namespace}`)}>{target.name}</a>
              </span>
            ))}
          </p>
        )}
        <a class="plain" href={editHref(plural, namespace, name)}>
          Edit
        </a>
      </div>
      {fault && <p class="fault">{fault} What is shown is the last good answer.</p>}
      <pre class="document" tabIndex={0} aria-label={`${data.kind} ${namespace}/${name} as YAML`}>
        {toYaml(data as never)}
      </pre>
      <p class="quiet">
        <code>{`pillion describe ${data.kind.toLowerCase()} ${name} -n ${namespace}`}</code> says the same, and <code>pillion apply -f</code> changes it, too.
      </p>
    </>
  );
}
