// What each policy of a service is set to, and what it did: from the policy's values and the counts of the page's span.
import type { Activity, Policy, Repeats } from "./api/types";
import { latency, quantity } from "./format";

/** One number of a policy. `bad`: if it isn't zero, somebody should look. */
export interface Figure {
  count: string;
  label: string;
  bad: boolean;
  zero: boolean;
}

export interface PolicyFigures {
  id: "retry" | "hedge" | "circuitBreaker" | "fallback" | "rateLimits" | "concurrency" | "faults" | "mirror";
  title: string;
  /** What it is set to, in a few words. */
  setting: string;
  figures: Figure[];
  /** By limit, reason, fault or workload. */
  rows: { name: string; text: string; bad?: boolean }[];
}

type Named = Record<string, number> | undefined;

const figure = (count: number | undefined, label: string, bad = false): Figure => ({
  count: quantity(count ?? 0),
  label,
  bad: bad && (count ?? 0) > 0,
  zero: !count,
});

const total = (counts: Named): number => Object.values(counts ?? {}).reduce((sum, count) => sum + count, 0);

/** The most first. */
const ranked = (counts: Named): [string, number][] =>
  Object.entries(counts ?? {}).sort(([one, a], [other, b]) => b - a || one.localeCompare(other));

/**
 * Retries and the breaker always hold; the others are shown where they are set, or did something. So a number that is no
 * longer zero moves nothing.
 */
export function policyFigures(policy: Policy | null, activity: Activity): PolicyFigures[] {
  const value = (field: string): string | null => {
    const found = policy?.fields.find((candidate) => candidate.field === field)?.value;
    return found === undefined || found === "none" ? null : found;
  };
  const isSet = (section: string): boolean =>
    policy?.fields.some(({ field, value }) => field.startsWith(`${section}.`) || (field === section && value !== "none")) ?? false;
  const words = (...parts: (string | null | false)[]): string => parts.filter(Boolean).join(", ");
  const with_ = (field: string, say: (value: string) => string): string | null => {
    const found = value(field);
    return found === null ? null : say(found);
  };
  const budget = (percent: number | null): string | null => (percent === null ? null : `${percent} % budget`);

  const severalPorts = new Set(activity.concurrency?.map(({ port }) => port)).size > 1;
  const attempts = value("retry.attempts");
  const list: (PolicyFigures | false)[] = [
    {
      id: "retry",
      title: "Retries",
      setting: words(
        attempts ? `${attempts} ${attempts === "1" ? "attempt" : "attempts"} after the first` : "only of what was not processed",
        budget(activity.retryBudgetPercent),
      ),
      figures: [
        figure(activity.retries, "retries"),
        figure(activity.recovered, "recovered"),
        figure(activity.retriesOverBudget, "over budget", true),
      ],
      rows: [],
    },
    (isSet("hedge") || Boolean(activity.hedges)) && {
      id: "hedge",
      title: "Hedging",
      setting: words(
        with_("hedge.after", (after) => `after ${after}`),
        with_("hedge.percentile", (percentile) => `slower than ${percentile} %`),
        budget(activity.hedgeBudgetPercent),
      ),
      figures: [
        figure(activity.hedges, "hedged"),
        figure(activity.hedgesWon, "won"),
        figure(activity.hedgesOverBudget, "over budget", true),
      ],
      rows: [],
    },
    {
      id: "circuitBreaker",
      title: "Circuit breaker",
      setting:
        value("circuitBreaker.disabled") === "true"
          ? "disabled"
          : words(
              with_("circuitBreaker.consecutiveFailures", (failures) => `${failures} failures in a row`),
              with_("circuitBreaker.panicPercent", (percent) => `panic at ${percent} %`),
            ),
      figures: [figure(activity.panicPicks, "panic picks", true), figure(activity.breakersSpared, "spared", true)],
      rows: [],
    },
    (isSet("fallback") || total(activity.fallbacksServed) + total(activity.fallbacksFailed) > 0) && {
      id: "fallback",
      title: "Fallback",
      setting: words(with_("fallback.backendRef.name", (name) => `to ${name}`), with_("fallback.response.status", (status) => `answers ${status}`)),
      figures: [figure(total(activity.fallbacksServed), "served"), figure(total(activity.fallbacksFailed), "failed", true)],
      rows: [
        ...ranked(activity.fallbacksServed).map(([reason, count]) => ({ name: reason, text: `${quantity(count)} served` })),
        ...ranked(activity.fallbacksFailed).map(([reason, count]) => ({ name: reason, text: `${quantity(count)} failed`, bad: true })),
      ],
    },
    (isSet("rateLimits") || total(activity.rateAdmitted) + total(activity.rateLimited) > 0) && {
      id: "rateLimits",
      title: "Rate limits",
      setting: "",
      figures: [figure(total(activity.rateAdmitted), "admitted"), figure(total(activity.rateLimited), "limited", true)],
      rows: [
        ...Object.keys({ ...activity.rateAdmitted, ...activity.rateLimited })
          .sort()
          .map((limit) => limitRow(limit, activity.rateAdmitted?.[limit] ?? 0, activity.rateLimited?.[limit] ?? 0)),
        ...(activity.limitedClients ?? []).map(({ client, limited }) => ({ name: client.replace(/^spiffe:\/\/[^/]+\//, ""), text: `${quantity(limited)} limited`, bad: true })),
      ],
    },
    (isSet("concurrency") || (activity.concurrency ?? []).length > 0) && {
      id: "concurrency",
      title: "Concurrency",
      setting: value("concurrency.type") === "fixed" ? `fixed at ${value("concurrency.limit")}` : "adaptive",
      figures: [
        figure(sum(activity.concurrency, ({ inFlight }) => inFlight), "in flight"),
        figure(sum(activity.concurrency, ({ queued }) => queued), "queued", true),
        figure(total(activity.shed), "shed", true),
      ],
      rows: [
        ...ranked(activity.shed).map(([priority, count]) => ({ name: `priority ${priority}`, text: `${quantity(count)} shed`, bad: true })),
        ...(activity.concurrency ?? []).map(({ workload, port, limit, inFlight, queued, minRttMs }) => ({
          name: severalPorts ? `${workload}:${port}` : workload,
          text: words(`${inFlight} of ${limit}`, queued > 0 && `${queued} queued`, minRttMs !== null && `best ${latency(minRttMs)}`),
        })),
      ],
    },
    (isSet("faults") || total(activity.faultsDelayed) + total(activity.faultsAborted) > 0) && {
      id: "faults",
      title: "Injected faults",
      setting: "",
      figures: [figure(total(activity.faultsDelayed), "delayed", true), figure(total(activity.faultsAborted), "aborted", true)],
      rows: Object.keys({ ...activity.faultsDelayed, ...activity.faultsAborted })
        .sort()
        .map((fault) => ({
          name: fault,
          text: words(
            activity.faultsDelayed?.[fault] !== undefined && `${quantity(activity.faultsDelayed[fault])} delayed`,
            activity.faultsAborted?.[fault] !== undefined && `${quantity(activity.faultsAborted[fault])} aborted`,
          ),
          bad: true,
        })),
    },
    total(activity.mirrored) > 0 && {
      id: "mirror",
      title: "Mirrored to it",
      setting: "copies of others' requests",
      figures: [
        figure(activity.mirrored?.["answered"], "answered"),
        figure(total(activity.mirrored) - (activity.mirrored?.["answered"] ?? 0), "not answered", true),
      ],
      rows: ranked(activity.mirrored)
        .filter(([outcome]) => outcome !== "answered")
        .map(([outcome, count]) => ({ name: outcome, text: quantity(count), bad: true })),
    },
  ];
  return list.filter((entry) => entry !== false);
}

function limitRow(limit: string, admitted: number, limited: number): PolicyFigures["rows"][number] {
  return { name: limit, text: `${quantity(admitted)} admitted, ${quantity(limited)} limited`, bad: limited > 0 };
}

function sum<T>(list: readonly T[] | undefined, of: (item: T) => number): number {
  return (list ?? []).reduce((total, item) => total + of(item), 0);
}

/** "12 retries, 10 recovered, 3 hedges"; nothing if there were none. */
export function repeatsInWords(repeats: Repeats | undefined): string {
  const named: [number | undefined, string, string][] = [
    [repeats?.retries, "retry", "retries"],
    [repeats?.recovered, "recovered", "recovered"],
    [repeats?.retriesOverBudget, "retry over budget", "retries over budget"],
    [repeats?.hedges, "hedge", "hedges"],
    [repeats?.hedgesWon, "won", "won"],
    [repeats?.hedgesOverBudget, "hedge over budget", "hedges over budget"],
  ];
  return named
    .filter(([count]) => count)
    .map(([count, one, many]) => `${quantity(count!)} ${count === 1 ? one : many}`)
    .join(", ");
}

/** Those of several edges together. */
export function addRepeats(all: readonly (Repeats | undefined)[]): Repeats {
  const sum: Repeats = {};
  for (const repeats of all) {
    for (const [name, count] of Object.entries(repeats ?? {}) as [keyof Repeats, number][]) sum[name] = (sum[name] ?? 0) + count;
  }
  return sum;
}
